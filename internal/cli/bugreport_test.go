// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// planted is in all that is secret in the test, and nowhere else.
const planted = "pl4nt3d"

const plantedKey = "-----BEGIN EC PRIVATE KEY-----\n" + planted + "\n-----END EC PRIVATE KEY-----\n"

// fakeLogs answers for all containers.
type fakeLogs map[string]string

func (f fakeLogs) read(_ context.Context, pod types.NamespacedName, container string, previous bool) ([]byte, error) {
	if previous {
		container += "-previous"
	}
	if text, ok := f[container]; ok {
		return []byte(text), nil
	}
	return nil, errors.New("no log of " + pod.String() + " Bearer " + planted)
}

// unpack an archive.
func unpack(t *testing.T, from io.Reader) map[string]string {
	t.Helper()
	zip, err := gzip.NewReader(from)
	require.NoError(t, err)
	out := map[string]string{}
	for archive := tar.NewReader(zip); ; {
		h, err := archive.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		require.NoError(t, err)
		data, err := io.ReadAll(archive)
		require.NoError(t, err)
		out[strings.TrimPrefix(h.Name, "fairway-bug-report/")] = string(data)
	}
}

// leaky are objects with secrets wherever they may be.
func leaky(t *testing.T) []client.Object {
	t.Helper()
	last := map[string]string{
		corev1.LastAppliedConfigAnnotation: `{"data":{"password":"` + planted + `"}}`, "example.com/key": planted,
	}
	annotated := func(m metav1.ObjectMeta) metav1.ObjectMeta {
		m.Annotations = last
		return m
	}
	container := func(name string) corev1.Container {
		return corev1.Container{
			Name: name, Image: "image:1", Args: []string{"--password=" + planted},
			Env: []corev1.EnvVar{{Name: "DB", Value: planted}},
			LivenessProbe: &corev1.Probe{ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{
				HTTPHeaders: []corev1.HTTPHeader{{Name: "x-key", Value: planted}},
			}}},
		}
	}
	with := func(containers ...string) func(*corev1.Pod) {
		return func(p *corev1.Pod) {
			p.ObjectMeta = annotated(p.ObjectMeta)
			for _, c := range containers {
				p.Spec.Containers = append(p.Spec.Containers, container(c))
				p.Status.ContainerStatuses = append(p.Status.ContainerStatuses, corev1.ContainerStatus{Name: c, RestartCount: 1})
			}
		}
	}
	gateway := &gwv1.Gateway{ObjectMeta: in("shop", object("edge", nil)), Spec: gwv1.GatewaySpec{
		GatewayClassName: "other", Listeners: []gwv1.Listener{{Name: "edge", TLS: &gwv1.ListenerTLSConfig{
			Options: map[gwv1.AnnotationKey]gwv1.AnnotationValue{"example.com/option": planted},
		}}},
	}}
	policy := &v1alpha1.AuthorizationPolicy{ObjectMeta: in("shop", object("claims", nil))}
	policy.Spec.Rules = []v1alpha1.AuthorizationRule{{ApplicationAttributes: &v1alpha1.AuthorizationApplicationAttributes{
		JWTClaims: []v1alpha1.AuthorizationJWTClaim{{Name: "sub", Values: []string{planted}}},
	}}}
	header := gwv1.HTTPHeader{Name: "authorization", Value: "secret-" + planted}
	route := routed("split")
	route.ObjectMeta = annotated(route.ObjectMeta)
	route.Spec.Rules = []gwv1.HTTPRouteRule{{
		Matches: []gwv1.HTTPRouteMatch{{Headers: []gwv1.HTTPHeaderMatch{{Name: "x-key", Value: planted}}}},
		Filters: []gwv1.HTTPRouteFilter{{
			Type:                  gwv1.HTTPRouteFilterRequestHeaderModifier,
			RequestHeaderModifier: &gwv1.HTTPHeaderFilter{Set: []gwv1.HTTPHeader{header}},
		}},
	}}
	return replace(
		t, healthyMesh(), route, gateway, policy,
		&corev1.Secret{
			ObjectMeta: annotated(in(names.SystemNamespace, object(names.CASecret, nil))),
			Data:       map[string][]byte{"tls.key": []byte(plantedKey)}, StringData: map[string]string{"x": planted},
		},
		&corev1.ConfigMap{ObjectMeta: in("shop", object("settings", nil)), Data: map[string]string{"key": planted}},
		&v1alpha1.HTTPExtension{
			ObjectMeta: annotated(in("shop", object("script", nil))),
			Spec:       v1alpha1.HTTPExtensionSpec{Lua: &v1alpha1.LuaExtension{Source: "key = '" + planted + "'"}},
		},
		&corev1.Event{
			ObjectMeta: in("shop", object("event", nil)), Message: "sent Authorization: Bearer " + planted + planted,
			InvolvedObject: corev1.ObjectReference{Namespace: "shop", Name: "app"},
		},
		pod(names.SystemNamespace, "operator-1", "a", names.ComponentOperator, with("operator")),
		pod(names.SystemNamespace, "node-a", "a", names.ComponentNode, with("agent", "envoy")),
		pod("shop", "waypoint-1", "b", names.ComponentWaypoint, with("agent", "envoy"),
			func(p *corev1.Pod) { p.Labels[names.LabelManagedBy] = names.ManagedBy }),
		pod("shop", "app", "a", "", with("app"), captured(corev1.ConditionTrue, "Captured", "")),
	)
}

// No secret gets into a report, wherever it is.
func TestBugReportHasNoSecrets(t *testing.T) {
	reach := operators(t, inSync()...)
	reach[introspect.PathVersion] = `{"version": "v0.1.0"}`
	reach[introspect.PathAgent] = `{"kind": "node", "operator": {"error": "Bearer ` + planted + `"}}`
	reach[introspect.PathMetrics] = "fairway_things_total 4\n"
	reach[introspect.PathEnvoy+"config_dump?include_eds=on"] = `{"configs": [{"route": {
		"request_headers_to_add": [{"header": {"key": "x-key", "value": "` + planted + `"}}],
		"match": {"headers": [{"name": "x-key", "string_match": {"exact": "` + planted + `"}}]}},
		"tls": {"private_key": {"inline_bytes": "` + planted + `"}}, "cluster": "10.96.0.1:80"}]}`
	reach[introspect.PathEnvoy+"clusters?format=json"] = `{"cluster_statuses": [{"host_statuses": [
		{"stats": [{"name": "cx_total", "value": "77001"}]}]}]}`
	c := fakeCluster(t, reach, leaky(t)...)
	line := `{"level":"info","msg":"asked","authorization":"Bearer ` + planted + planted + `","path":"/a?token=` + planted + `"}`
	c.logs = fakeLogs{
		"operator": line + "\nkept\n" + plantedKey, "agent": "[x] GET /a?k=" + planted + " 200 kept\n\x1b[2J\x1b]0;",
		"envoy-previous": line,
	}
	var archive, notes bytes.Buffer
	b := newBugReport(c, names.SystemNamespace, 1, testNow, &archive, &notes)
	b.collect(t.Context())
	require.NoError(t, b.close())

	files := unpack(t, &archive)
	for name, text := range files {
		require.NotContains(t, text, planted, name)
		require.NotContains(t, text, "\x1b", name)
		require.NotContains(t, name, "secret")
		require.NotContains(t, name, "configmap")
	}
	require.NotContains(t, notes.String(), planted)
	for name, kept := range map[string]string{
		"version.json": `"v0.1.0"`, "status.json": `"trustDomain"`, "check.json": `"checks"`,
		"objects/httproute.gateway.networking.k8s.io.json": `"authorization"`,
		"objects/httpextension.fairway.dev.json":           `"script"`,
		"objects/mesh.fairway.dev.json":                    `"conditions"`,
		"objects/pod.json":                                 `"image:1"`,
		"events/shop.json":                                 `"message"`,
		"pods/fairway-system/operator-1/operator.log":      "kept",
		"pods/fairway-system/operator-1/proxies.json":      `"scope"`,
		"pods/fairway-system/node-a/agent.log":             "200 kept\n\\x1b[2J\\x1b]0;",
		"objects/authorizationpolicy.fairway.dev.json":     `"sub"`,
		"objects/gateway.gateway.networking.k8s.io.json":   `"example.com/option"`,
		"pods/shop/waypoint-1/envoy-clusters.json":         `"77001"`,
		"pods/fairway-system/node-a/envoy-previous.log":    "info",
		"pods/shop/waypoint-1/envoy-config_dump.json":      "10.96.0.1:80",
		"pods/shop/waypoint-1/metrics.txt":                 "fairway_things_total 4",
	} {
		require.Contains(t, files[name], kept, name)
	}
	require.NotContains(t, files, "pods/fairway-system/node-b/agent.json", "of two node proxies one was asked for")
	require.Contains(t, files["about.txt"], "node proxies: 1 of 2 were left out (--proxies)")
	require.Contains(t, files["about.txt"], "pods/fairway-system/node-a/envoy.log: no log of fairway-system/node-a")
	require.Contains(t, files["about.txt"], "envoy-certs.json: connection refused")
	require.Contains(t, notes.String(), "could not collect")
}

// The command writes a file that others can't read, with the kinds that an API server has, and overwrites none.
func TestBugReportOfAnAPIServer(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	c, err := newClient(cfg)
	require.NoError(t, err)
	shopOf(t, c)
	require.NoError(t, c.Create(t.Context(), unansweredRoute("shop", "split", refersTo("", "Service", "", "reviews"))))
	require.NoError(t, c.Create(t.Context(), &corev1.Secret{
		ObjectMeta: in("shop", object("planted", nil)), StringData: map[string]string{"k": planted},
	}))
	file := filepath.Join(t.TempDir(), "report.tar.gz")
	kubeconfig := as(t, cfg, "")
	out, notes, err := does(t, "bug-report", "-o", file, "--kubeconfig", kubeconfig)
	require.NoError(t, err, notes)
	require.Equal(t, file+"\n", out)
	info, err := os.Stat(file)
	require.NoError(t, err)
	require.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	archive, err := os.Open(file)
	require.NoError(t, err)
	defer func() { require.NoError(t, archive.Close()) }()
	files := unpack(t, archive)
	require.Contains(t, files["objects/httproute.gateway.networking.k8s.io.json"], `"split"`)
	require.Contains(t, files["objects/namespace.json"], `"shop"`)
	require.Contains(t, files, "objects/mesh.fairway.dev.json")
	for name, text := range files {
		require.NotContains(t, text, planted, name)
	}
	_, _, err = does(t, "bug-report", "-o", file, "--kubeconfig", kubeconfig)
	require.ErrorContains(t, err, "is there already")

	// Without time there is a report as well: of what it lacks.
	hasty := filepath.Join(t.TempDir(), "hasty.tar.gz")
	_, notes, err = does(t, "bug-report", "-o", hasty, "--timeout", "1ns", "--kubeconfig", kubeconfig)
	require.NoError(t, err)
	require.Contains(t, notes, "objects/mesh.fairway.dev.json: no answer in time (--timeout)")
	require.FileExists(t, hasty)
}

func TestBugReportOfABadCommandLine(t *testing.T) {
	for _, args := range [][]string{{"--timeout", "0s"}, {"--timeout", "-1s"}, {"-o", "-"}, {"--proxies", "-1"}} {
		_, _, err := does(t, append([]string{"bug-report"}, args...)...)
		var usage exitError
		require.ErrorAs(t, err, &usage, args)
		require.Equal(t, exitUsage, usage.ExitCode(), args)
	}
}

// A namespace with much of a kind hides none of the others; annotations, which are left out, count for nothing.
func TestBugReportOfCrowds(t *testing.T) {
	var objects []client.Object
	for n := range mostObjectsOfNamespace + 1 {
		route := routed(fmt.Sprint("many-", n))
		route.Namespace = "crowd"
		objects = append(objects, route)
	}
	for n := range 3 {
		route := routed(fmt.Sprint("large-", n))
		route.Namespace = "large"
		route.Annotations = map[string]string{"example.com/large": strings.Repeat("x", mostOfNamespace/2)}
		objects = append(objects, route)
	}
	for n := range 3 {
		route := routed(fmt.Sprint("wide-", n))
		route.Namespace = "wide"
		route.Labels = map[string]string{"wide": strings.Repeat("x y ", mostOfNamespace/10)}
		objects = append(objects, route)
	}
	objects = append(objects, routed("zebra"))
	var archive, notes bytes.Buffer
	c := fakeCluster(t, operators(t, inSync()...), objects...)
	b := newBugReport(c, names.SystemNamespace, 1, testNow, &archive, &notes)
	gvk := schema.GroupVersionKind{Group: gwv1.GroupName, Version: "v1", Kind: "HTTPRoute"}
	b.addKind(t.Context(), objectsOf(gvk), gvk, "")
	require.NoError(t, b.close())
	files := unpack(t, &archive)
	var list struct {
		Kind  string
		Items []struct {
			Metadata struct{ Name, Namespace string }
		}
	}
	require.NoError(t, json.Unmarshal([]byte(files[objectsOf(gvk)]), &list))
	require.Equal(t, "HTTPRouteList", list.Kind)
	of := map[string]int{}
	for _, i := range list.Items {
		of[i.Metadata.Namespace]++
	}
	require.Equal(t, map[string]int{"crowd": mostObjectsOfNamespace, "large": 3, "wide": 3, "shop": 1}, of)
	require.Contains(t, files["about.txt"], "were left out: crowd")
}

// What others wrote reaches neither the terminal nor the report as they wrote it.
func TestBugReportShowsEscapes(t *testing.T) {
	var archive, notes bytes.Buffer
	b := newBugReport(fakeCluster(t, nil), names.SystemNamespace, 1, testNow, &archive, &notes)
	b.add(t.Context(), "a.json", func(context.Context) ([]byte, error) {
		return nil, errors.New("500 \x1b]52;c;AAAA\a\x1b[2J\nforged \u009b2J")
	})
	b.say("a\nb\x1b")
	require.NoError(t, b.close())
	about := unpack(t, &archive)["about.txt"]
	want := `could not collect a.json: 500 \x1b]52;c;AAAA\a\x1b[2J forged \u009b2J` + "\n"
	require.Equal(t, want+`a\nb\x1b`+"\n", notes.String())
	require.NotContains(t, about, "\x1b")
}
