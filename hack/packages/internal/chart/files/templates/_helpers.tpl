{{/* The image of operator and agents. A digest says it all, so no tag is beside it. */}}
{{- define "fairway.image" -}}
{{- with .Values.image -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag | default $.Chart.AppVersion }}{{ end }}
{{- end -}}
{{- end -}}

{{/* The image of Envoy, for all proxies. */}}
{{- define "fairway.envoyImage" -}}
{{- with .Values.envoyImage -}}
{{ .repository }}{{ if .digest }}@{{ .digest }}{{ else }}:{{ .tag }}{{ end }}
{{- end -}}
{{- end -}}

{{/* "yes" where PodMonitors are wanted, and empty otherwise. */}}
{{- define "fairway.podMonitors" -}}
{{- $there := .Capabilities.APIVersions.Has "monitoring.coreos.com/v1/PodMonitor" -}}
{{- $mode := .Values.monitoring.podMonitors -}}
{{- if or (eq $mode "Always") (and (eq $mode "Auto") $there) }}yes{{ end -}}
{{- end -}}
