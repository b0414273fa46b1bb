// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/cli"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// fairway runs a command of the user's.
func fairway(t *testing.T, args ...string) (out, notes string, err error) {
	t.Helper()
	cmd := cli.Root(&cobra.Command{Use: "fairway"})
	var stdout, stderr bytes.Buffer
	cmd.SetOut(&stdout)
	cmd.SetErr(&stderr)
	cmd.SetArgs(args)
	err = cmd.ExecuteContext(t.Context())
	return stdout.String(), stderr.String(), err
}

// metrics of a pod of the mesh.
func metrics(t *testing.T, look require.TestingT, pod *corev1.Pod, port int) string {
	t.Helper()
	response, err := http.Get("http://" + podPort(t, pod, port) + "/metrics")
	require.NoError(look, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(look, err)
	return string(body)
}

// families are the metrics of a pod of the mesh, by name.
func families(t *testing.T, look require.TestingT, pod *corev1.Pod, port int) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	out, err := parser.TextToMetricFamilies(strings.NewReader(metrics(t, look, pod, port)))
	require.NoError(look, err)
	return out
}

// connectedNodes is how many node proxies an operator says that it serves.
func connectedNodes(all map[string]*dto.MetricFamily) (n int, said bool) {
	for _, m := range all["fairway_xds_connected_proxies"].GetMetric() {
		if m.GetLabel()[0].GetValue() == names.ComponentNode {
			return int(m.GetGauge().GetValue()), true
		}
	}
	return 0, false
}

// TestWhatAUserSees asks everything that there is to ask of a mesh that carries traffic at both layers.
func TestWhatAUserSees(t *testing.T) {
	s := enrolled(t)
	s.client("client")
	s.client("outside", podLabel(names.LabelMesh, names.MeshDisabled))
	s.server("server")
	direct := s.service("server", "server")
	s.versions("app")
	s.captured("client", "server", "app-v1", "app-v2")
	s.create(httpRoute("app", toService("app"), rule(nil, backend("app-v1"))))
	s.programmed("app")
	s.answers("client", "http://server/", "server")
	s.answers("client", "http://app/", "app-v1")
	client := s.pod("client")

	t.Run("status", func(t *testing.T) {
		type waypoint struct {
			Namespace  string
			Programmed bool
		}
		type resources struct {
			Name  string
			Acked int
		}
		var report struct {
			Healthy bool
			Nodes   []struct {
				Ready    bool
				Captured int
			}
			Waypoints []waypoint
			Proxies   []struct {
				State string
				Types []resources
			}
		}
		eventually.Passes(t, "a status that finds all well", func(look require.TestingT) {
			out, _, err := fairway(t, "status", "-o", "json")
			require.NoError(look, err, out)
			require.NoError(look, json.Unmarshal([]byte(out), &report))
			require.True(look, report.Healthy)
			require.NotEmpty(look, report.Nodes)
			for _, n := range report.Nodes {
				require.True(look, n.Ready)
			}
			require.Contains(look, report.Waypoints, waypoint{s.name, true})
			require.NotEmpty(look, report.Proxies)
			for _, p := range report.Proxies {
				require.Equal(look, "in sync", p.State)
				require.Contains(look, p.Types, resources{"Runtime", 1}, "what is logged comes as a runtime layer")
			}
		})
	})
	t.Run("proxy of an application's pod", func(t *testing.T) {
		for view, has := range map[string]string{
			"clusters":  direct.Spec.ClusterIP + ":80",
			"listeners": "outbound/" + string(client.UID),
			"secrets":   "/ns/" + s.name + "/sa/client",
		} {
			for _, format := range []string{"table", "json"} {
				out, _, err := fairway(t, "proxy", view, "-n", s.name, client.Name, "-o", format)
				require.NoError(t, err, view)
				require.Contains(t, out, has, "%s as %s", view, format)
				if view != "clusters" {
					require.NotContains(t, out, string(s.pod("server").UID), "%s of another pod", view)
				}
			}
		}
		out, _, err := fairway(t, "proxy", "routes", "-n", s.name, client.Name)
		require.NoError(t, err)
		require.Contains(t, out, "no routes of its own")
		_, notes, err := fairway(t, "proxy", "listeners", "-n", s.name, s.pod("outside").Name)
		require.NoError(t, err)
		require.Contains(t, notes, "OptedOut")
	})
	waypoints, err := component(t.Context(), s.name, names.ComponentWaypoint)
	require.NoError(t, err)
	require.NotEmpty(t, waypoints)
	t.Run("proxy of a waypoint", func(t *testing.T) {
		for view, has := range map[string]string{
			"clusters": names.ServicePort(s.name, "app", 80), "listeners": names.ListenerMTLS,
			"routes": names.ServicePort(s.name, "app", 80),
		} {
			out, _, err := fairway(t, "proxy", view, "-n", s.name, waypoints[0].Name)
			require.NoError(t, err, view)
			require.Contains(t, out, has, view)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		operators, err := component(t.Context(), names.SystemNamespace, names.ComponentOperator)
		require.NoError(t, err)
		nodes, err := component(t.Context(), names.SystemNamespace, names.ComponentNode)
		require.NoError(t, err)
		// A stream that reached its age is opened anew.
		eventually.Passes(t, "every node proxy is connected", func(look require.TestingT) {
			connected := 0
			for i := range operators { // each proxy is connected to whichever replica it met
				all := families(t, look, &operators[i], names.PortAdmin)
				require.Contains(look, all, "fairway_ca_not_after_timestamp_seconds")
				n, said := connectedNodes(all)
				require.True(look, said, "connected node proxies of %s", operators[i].Name)
				connected += n
			}
			require.Equal(look, len(nodes), connected, "connected node proxies")
		})
		for i := range nodes {
			if nodes[i].Spec.NodeName != client.Spec.NodeName {
				continue
			}
			all := metrics(t, t, &nodes[i], names.PortAdmin)
			require.Contains(t, all, "\nfairway_relay_connected 1\n")
			require.Contains(t, all, "\nfairway_agent_pods{")
			require.Contains(t, all,
				`envoy_cluster_upstream_cx_total{envoy_cluster_name="`+names.NodeEndpoints(s.name, "server", 80, false)+`"}`)
		}
		all := metrics(t, t, &waypoints[0], names.PortAgent)
		require.Contains(t, all, "\nfairway_relay_connected 1\n")
		require.Contains(t, all,
			`envoy_cluster_upstream_rq_total{envoy_cluster_name="`+names.ServicePort(s.name, "app", 80)+`"}`)
	})
}

// TestAPodOptsOutWhileItRuns: the label is obeyed on a running pod, without a restart, and so is its absence.
func TestAPodOptsOutWhileItRuns(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	pod := s.pod("server")
	relabel(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: pod.Name}}, names.LabelMesh,
		names.MeshDisabled)
	s.captureIs(corev1.ConditionFalse, "server")
	s.answers("client", "http://server/", "server")
	relabel(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: pod.Name}}, names.LabelMesh, "")
	s.captured("server")
	start := since()
	s.answers("client", "http://server/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	require.Equal(t, pod.UID, s.pod("server").UID)
}
