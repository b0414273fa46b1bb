// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What leads to a pod: itself, what it is of, and both with a namespace.
func TestWhichPodIsMeant(t *testing.T) {
	app := map[string]string{"app": "shop"}
	selector := &metav1.LabelSelector{MatchLabels: app}
	labelled := func(p *corev1.Pod) { p.Labels["app"] = "shop" }
	unready := func(p *corev1.Pod) { p.Status.Conditions = nil }
	c := fakeCluster(
		t, nil,
		pod("shop", "a-unready", "a", "", labelled, unready), pod("shop", "b-ready", "a", "", labelled),
		pod("shop", "with.dots", "a", ""), pod("default", "here", "a", ""),
		pod("shop", "waypoint-1", "a", names.ComponentWaypoint,
			func(p *corev1.Pod) { p.Labels[names.LabelGatewayName] = "named" }),
		gateway("named"),
		&appsv1.Deployment{ObjectMeta: in("shop", object("web", nil)), Spec: appsv1.DeploymentSpec{Selector: selector}},
		&appsv1.DaemonSet{ObjectMeta: in("shop", object("each", nil)), Spec: appsv1.DaemonSetSpec{Selector: selector}},
		&appsv1.StatefulSet{ObjectMeta: in("shop", object("db", nil)), Spec: appsv1.StatefulSetSpec{Selector: selector}},
		&appsv1.Deployment{ObjectMeta: in("shop", object("idle", nil)), Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "idle"}},
		}},
		&corev1.Service{ObjectMeta: in("shop", object("front", nil)), Spec: corev1.ServiceSpec{Selector: app}},
		&corev1.Service{ObjectMeta: in("shop", object("outside", nil))},
	)
	c.namespace = "shop"
	for given, want := range map[string]string{
		"b-ready": "shop/b-ready", "pod/b-ready": "shop/b-ready", "deploy/web": "shop/b-ready", "ds/each": "shop/b-ready",
		"sts/db": "shop/b-ready", "svc/front": "shop/b-ready", "gateway/named": "shop/waypoint-1",
		"with.dots": "shop/with.dots", "with.dots.shop": "shop/with.dots", "here.default": "default/here",
		"default/here": "default/here", "service/front.shop": "shop/b-ready",
	} {
		got, _, err := podFor(t.Context(), c, given)
		require.NoError(t, err, given)
		require.Equal(t, want, got.String(), given)
	}
	_, note, err := podFor(t.Context(), c, "deploy/web")
	require.NoError(t, err)
	require.Equal(t, "deployment shop/web: pod shop/b-ready answers", note)
	for given, says := range map[string]string{
		"nobody":        "there is no pod nobody in namespace shop",
		"deploy/nobody": "there is no deployment nobody in namespace shop",
		"deploy/idle":   "deployment shop/idle has no pod that runs", "svc/outside": "service shop/outside selects no pods",
		"a/b/c": "want POD, TYPE/NAME", "deploy/": "want POD, TYPE/NAME", "gateway/nobody": "there is no gateway nobody",
	} {
		_, _, err := podFor(t.Context(), c, given)
		require.ErrorContains(t, err, says, given)
	}
}

func TestConnectionsOfAProxy(t *testing.T) {
	clusters, err := os.ReadFile(filepath.Join("testdata", "clusters.json"))
	require.NoError(t, err)
	stats := introspect.PathEnvoy + listenerStats()
	at := target{}
	for name, c := range map[string]struct {
		pods fakePods
		want string
	}{
		"connections-none.txt": {pods: fakePods{
			introspect.PathEnvoy + "clusters?format=json": `{"cluster_statuses": []}`, stats: `{"stats": []}`,
		}},
		"connections.txt": {pods: fakePods{
			introspect.PathEnvoy + "clusters?format=json": string(bytes.ReplaceAll(clusters,
				[]byte(`"name": "cx_active"`), []byte(`"value": "3", "name": "cx_active"`))),
			stats: `{"stats": [{"name": "listener.10.0.0.1_15008.downstream_cx_active", "value": 2},
				{"name": "listener.10.0.0.1_15008.worker_0.downstream_cx_active", "value": 2},
				{"name": "listener.10.0.0.2_15008.downstream_cx_active", "value": 0}]}`,
		}},
	} {
		found, err := askConnections(t.Context(), fakeCluster(t, c.pods), at)
		require.NoError(t, err)
		var out bytes.Buffer
		found.draw(&table{out: &out})
		golden(t, name, out.Bytes())
	}
	_, err = askConnections(t.Context(), fakeCluster(t, fakePods{}), at)
	require.ErrorContains(t, err, "connection refused")
}

func TestLogLevelOfAProxy(t *testing.T) {
	c := fakeCluster(t, fakePods{introspect.PathEnvoy + "server_info": `{"command_line_options":
		{"log_level": "warning", "component_log_level": "upstream:debug"}}`})
	found, err := askLogLevel(t.Context(), c, target{})
	require.NoError(t, err)
	var out bytes.Buffer
	found.draw(&table{out: &out})
	require.Equal(t, "log level warning\nbut of    upstream:debug\nset by    spec.node.logLevel of the Mesh\n",
		out.String())
	found, err = askLogLevel(t.Context(), c, target{pod: podOf("shop/w-1"), gateway: "w"})
	require.NoError(t, err)
	require.Equal(t, "spec.logLevel of the ProxyParameters that Gateway shop/w names", found.Set)
}
