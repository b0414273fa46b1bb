// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"encoding/json"
	"fmt"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"helm.sh/helm/v4/pkg/chart/v2/lint"
	"helm.sh/helm/v4/pkg/chart/v2/lint/support"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const sum = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

// changes is what values change of the release with default values, as "KIND NAME path: value" with YAML in one line.
func changes(t *testing.T, r rendering, values string) []string {
	t.Helper()
	before, after := r.objects(t, ""), r.objects(t, values)
	var out []string
	for _, key := range slices.Sorted(maps.Keys(before)) {
		if after[key] == nil {
			out = append(out, "-"+key)
			continue
		}
		out = append(out, differences(key, map[string]any(before[key]), map[string]any(after[key]))...)
	}
	for _, key := range slices.Sorted(maps.Keys(after)) {
		if before[key] == nil {
			out = append(out, "+"+key)
		}
	}
	return out
}

func differences(at string, a, b any) []string {
	if reflect.DeepEqual(a, b) {
		return nil
	}
	before, ok := a.(map[string]any)
	after, is := b.(map[string]any)
	if ok && is {
		keys := maps.Clone(before)
		maps.Copy(keys, after)
		var out []string
		for _, key := range slices.Sorted(maps.Keys(keys)) {
			out = append(out, differences(at+" "+key, before[key], after[key])...)
		}
		return out
	}
	list, ok := a.([]any)
	next, is := b.([]any)
	if ok && is && len(list) == len(next) {
		var out []string
		for n := range list {
			out = append(out, differences(fmt.Sprintf("%s %d", at, n), list[n], next[n])...)
		}
		return out
	}
	text, err := json.Marshal(b)
	if err != nil {
		return []string{err.Error()}
	}
	return []string{at + ": " + string(text)}
}

// TestValues: each value changes what it says, and nothing else.
func TestValues(t *testing.T) {
	const (
		op   = "Deployment fairway-operator spec "
		pod  = op + "template spec "
		main = pod + "containers 0 "
	)
	for _, c := range []struct {
		name, values string
		want         []string
	}{
		{"repository", "image: {repository: r.example/f}", []string{
			main + `env 2 value: "r.example/f:v0.1.0"`, main + `image: "r.example/f:v0.1.0"`,
		}},
		{"tag", "image: {tag: v9}", []string{
			main + `env 2 value: "fairway.dev/fairway:v9"`, main + `image: "fairway.dev/fairway:v9"`,
		}},
		{"digest", "image: {tag: v9, digest: '" + sum + "'}", []string{
			main + `env 2 value: "fairway.dev/fairway@` + sum + `"`, main + `image: "fairway.dev/fairway@` + sum + `"`,
		}},
		{"pull policy", "image: {pullPolicy: Always}", []string{main + `imagePullPolicy: "Always"`}},
		{"envoy", "envoyImage: {repository: r.example/envoy, tag: v1}", []string{main + `env 3 value: "r.example/envoy:v1"`}},
		{"envoy's digest", "envoyImage: {digest: '" + sum + "'}", []string{main + `env 3 value: "envoyproxy/envoy@` + sum + `"`}},
		{"pull secrets", "imagePullSecrets: [{name: a}]", []string{
			`ServiceAccount fairway-node imagePullSecrets: [{"name":"a"}]`,
			`ServiceAccount fairway-operator imagePullSecrets: [{"name":"a"}]`,
		}},
		{"replicas", "replicas: 3", []string{op + "replicas: 3"}},
		{"log level", "logLevel: debug", []string{main + `args: ["operator","--log-level=debug"]`}},
		{"resources", "resources: {limits: {memory: 8Gi}, requests: {cpu: 2}}", []string{
			main + `resources limits memory: "8Gi"`, main + "resources requests cpu: 2",
		}},
		{"node selector", "nodeSelector: {example.org/trusted: 'true'}", []string{
			pod + `nodeSelector example.org/trusted: "true"`,
		}},
		{"control plane", "{controlPlane: {enabled: true}, nodeSelector: {a: b}}", []string{
			pod + `nodeSelector a: "b"`, pod + `nodeSelector node-role.kubernetes.io/control-plane: ""`,
		}},
		{"tolerations", "tolerations: [{operator: Exists}]", []string{
			pod + "tolerations 0 effect: null", pod + "tolerations 0 key: null",
		}},
		{"no tolerations", "tolerations: []", []string{pod + "tolerations: []"}},
		{"affinity", "affinity: {nodeAffinity: {a: b}}", []string{pod + `affinity: {"nodeAffinity":{"a":"b"}}`}},
		{"priority", "priorityClassName: mine", []string{pod + `priorityClassName: "mine"`}},
		{"annotations", "podAnnotations: {a: b, prometheus.io/scrape: 'false'}", []string{
			op + `template metadata annotations a: "b"`, op + `template metadata annotations prometheus.io/scrape: "false"`,
		}},
		{"labels, but for those that select", "podLabels: {a: b, app.kubernetes.io/name: other}", []string{
			op + `template metadata labels a: "b"`,
		}},
		{"network policy", "networkPolicy: {enabled: false}", []string{"-NetworkPolicy fairway-operator"}},
		{"quota", "resourceQuota: {enabled: false}", []string{"-ResourceQuota fairway-critical-pods"}},
		{"CRDs", "crds: {enabled: false}", []string{
			"-CustomResourceDefinition authenticationpolicies.fairway.dev",
			"-CustomResourceDefinition authorizationpolicies.fairway.dev",
			"-CustomResourceDefinition httpextensions.fairway.dev", "-CustomResourceDefinition meshes.fairway.dev",
			"-CustomResourceDefinition proxyparameters.fairway.dev",
			"-CustomResourceDefinition trafficpolicies.fairway.dev",
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := changes(t, rendering{}, c.values); !slices.Equal(got, c.want) {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n     "), strings.Join(c.want, "\n     "))
			}
		})
	}
}

// TestPodMonitors: they are made where they are wanted, with the labels and the interval that are asked for.
func TestPodMonitors(t *testing.T) {
	made := []string{
		"+ClusterRoleBinding fairway-metrics", "+PodMonitor fairway-node", "+PodMonitor fairway-operator",
		"+PodMonitor fairway-waypoints", "+Secret fairway-metrics", "+ServiceAccount fairway-metrics",
	}
	there := rendering{apis: []string{"monitoring.coreos.com/v1/PodMonitor"}}
	for _, c := range []struct {
		r    rendering
		mode string
		want []string
	}{
		{rendering{}, "Auto", nil}, {there, "Auto", made}, {there, "Never", nil}, {rendering{}, "Always", made},
	} {
		if got := changes(t, c.r, "monitoring: {podMonitors: "+c.mode+"}"); !slices.Equal(got, c.want) {
			t.Errorf("%s: got %v, want %v", c.mode, got, c.want)
		}
	}
	objects := there.objects(t, "monitoring: {podMonitors: Auto, interval: 15s, labels: {release: prometheus}}")
	for _, name := range []string{"fairway-operator", "fairway-node", "fairway-waypoints"} {
		m := objects["PodMonitor "+name]
		if m.Str("metadata", "labels", "release") != "prometheus" {
			t.Errorf("%s lacks the label", name)
		}
		endpoint := list(m.At("spec", "podMetricsEndpoints"))[0]
		if endpoint.Str("interval") != "15s" {
			t.Errorf("%s has the interval %v", name, endpoint["interval"])
		}
		// Waypoints could keep a token that is sent to them.
		if authenticated := endpoint["authorization"] != nil; authenticated == (name == "fairway-waypoints") {
			t.Errorf("%s: a token is sent: %v", name, authenticated)
		}
	}
	container := source.Containers(operator(t, objects))[0]
	if !strings.Contains(fmt.Sprint(container["ports"]), "name:metrics") {
		t.Error("the operator has no port of the name that its PodMonitor asks for")
	}
}

// TestSchema: values that nothing reads, or of the wrong form, are refused by name.
func TestSchema(t *testing.T) {
	for values, want := range map[string]string{
		"replica: 3":                        "replica",
		"replicas: '3'":                     "/replicas",
		"replicas: 0":                       "/replicas",
		"image: {name: x}":                  "name",
		"image: {repository: ''}":           "/image/repository",
		"image: {digest: sha256:12}":        "/image/digest",
		"image: {pullPolicy: Sometimes}":    "/image/pullPolicy",
		"envoyImage: v1":                    "/envoyImage",
		"imagePullSecrets: [registry]":      "/imagePullSecrets/0",
		"networkPolicy: true":               "/networkPolicy",
		"monitoring: {podMonitors: true}":   "/monitoring/podMonitors",
		"tolerations: [{keys: x}]":          "keys",
		"podLabels: {a: 1}":                 "/podLabels/a",
		"logLevel: trace":                   "/logLevel",
		"mesh: {create: true}":              "mesh",
		"crds: {enabled: 'yes'}":            "/crds/enabled",
		"resources: {limit: {memory: 1Gi}}": "limit",
		"affinity: {node: {}}":              "node",
		"monitoring: {interval: often}":     "/monitoring/interval",
		"resourceQuota: {enabled: 1}":       "/resourceQuota/enabled",
	} {
		_, err := rendering{}.release(t, values)
		if err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), "values don't meet") {
			t.Errorf("%s: %v", values, err)
		}
	}
	// Helm gives charts of other charts this one.
	if _, err := (rendering{}).release(t, "global: {anything: true}"); err != nil {
		t.Error(err)
	}
}

// TestSchemaHasAllValues: each value is in the schema, and the other way round.
func TestSchemaHasAllValues(t *testing.T) {
	c := load(t, Image{})
	var schema source.Object
	if err := json.Unmarshal(c.Schema, &schema); err != nil {
		t.Fatal(err)
	}
	properties, _ := schema.At("properties").(map[string]any)
	delete(properties, "global")
	want := slices.Sorted(maps.Keys(c.Values))
	if got := slices.Sorted(maps.Keys(properties)); !slices.Equal(got, want) {
		t.Errorf("the schema has %v, the values are %v", got, want)
	}
	for _, name := range want {
		nested, ok := c.Values[name].(map[string]any)
		of, _ := properties[name].(map[string]any)
		fields, strict := of["properties"].(map[string]any)
		if !ok || !strict || name == "resources" || name == "affinity" { // those are Kubernetes' own
			continue
		}
		if got := slices.Sorted(maps.Keys(fields)); !slices.Equal(got, slices.Sorted(maps.Keys(nested))) {
			t.Errorf("%s: the schema has %v", name, got)
		}
	}
}

// TestNamespace: another one than the proxies trust is refused, and the message says what to do.
func TestNamespace(t *testing.T) {
	_, err := rendering{namespace: "mesh"}.release(t, "")
	if err == nil || !strings.Contains(err.Error(), "--namespace fairway-system") {
		t.Errorf("got %v", err)
	}
}

// TestNotes: they say what Helm doesn't do.
func TestNotes(t *testing.T) {
	rel, err := rendering{}.release(t, "")
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"kubectl label namespace fairway-system --overwrite pod-security.kubernetes.io/audit=privileged " +
			"pod-security.kubernetes.io/enforce=privileged pod-security.kubernetes.io/warn=privileged",
		"kind: Mesh", "helm uninstall fairway --namespace fairway-system",
		"The CRDs of the Gateway API are not there", "The CRDs stay",
	} {
		if !strings.Contains(rel.Info.Notes, want) {
			t.Errorf("the notes lack %q:\n%s", want, rel.Info.Notes)
		}
	}
}

// TestLint: Helm's own checks find nothing.
func TestLint(t *testing.T) {
	files, err := Generate(root, Image{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir() + "/fairway"
	if err := source.Write(dir, files); err != nil {
		t.Fatal(err)
	}
	result := lint.RunAll(dir, map[string]any{}, namespace)
	for _, m := range result.Messages {
		// There is no icon, which is a hint only.
		if m.Severity != support.InfoSev {
			t.Error(m)
		}
	}
}

// TestGolden is for reading: the one template that is more than what kustomize makes.
func TestGolden(t *testing.T) {
	files, err := Generate(root, Image{})
	if err != nil {
		t.Fatal(err)
	}
	golden(t, "testdata/deployment.golden", files["templates/fairway-operator_deployment.yaml"])
	golden(t, "testdata/values.golden", files["values.yaml"])
	var chart source.Object
	if err := yaml.Unmarshal(files["Chart.yaml"], &chart); err != nil || chart.Str("version") != "0.1.0" ||
		chart.Str("appVersion") != "v0.1.0" {
		t.Errorf("the chart is %v, %v", chart, err)
	}
}

func list(v any) []source.Object {
	items, _ := v.([]any)
	var out []source.Object
	for _, i := range items {
		if m, ok := i.(map[string]any); ok {
			out = append(out, m)
		}
	}
	return out
}
