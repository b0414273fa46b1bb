// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"unicode"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// field is one that forms and pages of a web console show. What it means, and which values it takes, is in the CRD.
type field struct{ path, name string }

// What few fields of each kind most users look for first. Lists of rules are better written as YAML.
var (
	specFields = map[string][]field{
		"Mesh": {
			{"mtls.mode", "Mutual TLS"},
			{"outbound", "Traffic out of the mesh"},
			{"trustDomain", "Trust domain"},
			{"authorization.default", "Who may connect where no policy says so"},
			{"accessLog.mode", "Access log"},
			{"paused", "Pause the replacement of proxies"},
			{"node.resources", "Resources of node proxies"},
		},
		"AuthenticationPolicy": {{"mtls.mode", "Mutual TLS"}},
		"AuthorizationPolicy": {
			{"enforcementLevel", "Where it is enforced"}, {"action", "Action"}, {"dryRun", "Try it without enforcing it"},
		},
		"HTTPExtension": {{"lua.source", "Script in Lua"}},
		"ProxyParameters": {
			{"replicas", "Replicas"},
			{"resources", "Resources"},
			{"logLevel", "Level of the proxy's log"},
			{"drainTimeout", "How long connections may take to end"},
		},
		"TrafficPolicy": {{"loadBalancing.type", "Load balancing"}},
	}
	statusFields = map[string][]field{
		"Mesh": {
			{"conditions", "Conditions"}, {"nodes.summary", "Nodes"}, {"nodes.capturedPods", "Pods in the mesh"},
		},
	}
	// made are the kinds of objects that the operator makes for an object of a kind, or that it is about.
	made = map[string][]any{
		"Mesh": {
			resource("DaemonSet", "apps/v1"), resource("Secret", "v1"), resource("ConfigMap", "v1"),
			resource("GatewayClass", "gateway.networking.k8s.io/v1"),
			resource("ValidatingAdmissionPolicy", "admissionregistration.k8s.io/v1"),
		},
		"AuthenticationPolicy": {resource("Pod", "v1"), resource("Service", "v1")},
		"AuthorizationPolicy":  {resource("Pod", "v1"), resource("Service", "v1")},
		"HTTPExtension":        {resource("ConfigMap", "v1"), resource("Service", "v1")},
		"TrafficPolicy":        {resource("Service", "v1")},
		"ProxyParameters": {
			resource("Deployment", "apps/v1"), resource("HorizontalPodAutoscaler", "autoscaling/v2"),
			resource("PodDisruptionBudget", "policy/v1"),
		},
	}
)

func resource(kind, version string) any {
	return map[string]any{"kind": kind, "name": "", "version": version}
}

// withSamples adds fields that samples of the kind have in their spec: what is shown to users has a name in forms, too.
func withSamples(fields []field, kind string, samples []source.Object) []field {
	out := slices.Clone(fields)
	named := map[string]bool{}
	for _, f := range fields {
		named[f.path] = true
	}
	for _, sample := range samples {
		spec, _ := sample.At("spec").(map[string]any)
		if sample.Kind() != kind {
			continue
		}
		for _, key := range slices.Sorted(maps.Keys(spec)) {
			if !named[key] {
				named[key] = true
				out = append(out, field{key, spelled(key)})
			}
		}
	}
	return out
}

// spelled is the name of a field as words: "targetRefs" is "Target refs".
func spelled(name string) string {
	var out strings.Builder
	for n, r := range name {
		switch {
		case n == 0:
			out.WriteRune(unicode.ToUpper(r))
		case unicode.IsUpper(r):
			out.WriteRune(' ')
			out.WriteRune(unicode.ToLower(r))
		default:
			out.WriteRune(r)
		}
	}
	return out.String()
}

// descriptors of the fields of one part of a kind, "spec" or "status", by its schema.
func descriptors(schema source.Object, part string, fields []field) ([]any, error) {
	out := make([]any, 0, len(fields))
	for _, f := range fields {
		at := source.Object{"properties": map[string]any{part: schema.At("properties", part)}}
		for _, step := range append([]string{part}, strings.Split(f.path, ".")...) {
			next, ok := at.At("properties", step).(map[string]any)
			if !ok {
				return nil, fmt.Errorf("there is no field %s.%s", part, f.path)
			}
			at = next
		}
		d := map[string]any{"path": f.path, "displayName": f.name, "x-descriptors": shownAs(f, at)}
		if text := strings.Join(strings.Fields(at.Str("description")), " "); text != "" {
			d["description"] = text
		}
		out = append(out, d)
	}
	return out, nil
}

// shownAs is how a console shows a field of that schema.
func shownAs(f field, schema source.Object) []any {
	const ui = "urn:alm:descriptor:com.tectonic.ui:"
	if f.path == "conditions" {
		return []any{"urn:alm:descriptor:io.kubernetes.conditions"}
	}
	if values, _ := schema["enum"].([]any); len(values) > 0 {
		out := make([]any, 0, len(values))
		for _, v := range values {
			out = append(out, fmt.Sprintf("%sselect:%v", ui, v))
		}
		return out
	}
	switch {
	case schema.Str("type") == "boolean":
		return []any{ui + "booleanSwitch"}
	case schema.Str("type") == "integer" && f.path == "replicas":
		return []any{ui + "podCount"}
	case schema.Str("type") == "integer":
		return []any{ui + "number"}
	case strings.HasSuffix(f.path, "resources"):
		return []any{ui + "resourceRequirements"}
	case schema.Str("type") == "object", schema.Str("type") == "array":
		return []any{ui + "advanced"}
	}
	return []any{ui + "text"}
}
