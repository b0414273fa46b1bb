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

	. "github.com/onsi/gomega" //nolint:revive // assertions read as sentences
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/spf13/cobra"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/cli"
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
func metrics(t *testing.T, g Gomega, pod *corev1.Pod, port int) string {
	t.Helper()
	response, err := http.Get("http://" + podPort(t, pod, port) + "/metrics")
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return string(body)
}

// families are the metrics of a pod of the mesh, by name.
func families(t *testing.T, g Gomega, pod *corev1.Pod, port int) map[string]*dto.MetricFamily {
	t.Helper()
	parser := expfmt.NewTextParser(model.UTF8Validation)
	out, err := parser.TextToMetricFamilies(strings.NewReader(metrics(t, g, pod, port)))
	g.Expect(err).NotTo(HaveOccurred())
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
	g := NewWithT(t)
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
		var report struct {
			Healthy bool
			Nodes   []struct {
				Ready    bool
				Captured int
			}
			Waypoints []struct {
				Namespace  string
				Programmed bool
			}
			Proxies []struct {
				State string
				Types []struct {
					Name  string
					Acked int
				}
			}
		}
		NewWithT(t).Eventually(func(g Gomega) {
			out, _, err := fairway(t, "status", "-o", "json")
			g.Expect(err).NotTo(HaveOccurred(), out)
			g.Expect(json.Unmarshal([]byte(out), &report)).To(Succeed())
			g.Expect(report.Healthy).To(BeTrue())
			g.Expect(report.Nodes).To(HaveEach(HaveField("Ready", true)))
			g.Expect(report.Waypoints).To(ContainElement(And(HaveField("Namespace", s.name), HaveField("Programmed", true))))
			g.Expect(report.Proxies).To(HaveEach(HaveField("State", "in sync")))
			g.Expect(report.Proxies).To(HaveEach(HaveField("Types", ContainElement(And(HaveField("Name", "Runtime"), HaveField("Acked", 1))))),
				"what is logged comes as a runtime layer")
		}).Should(Succeed())
	})
	t.Run("proxy of an application's pod", func(t *testing.T) {
		for view, has := range map[string]string{
			"clusters":  direct.Spec.ClusterIP + ":80",
			"listeners": "outbound/" + string(client.UID),
			"secrets":   "/ns/" + s.name + "/sa/client",
		} {
			for _, format := range []string{"table", "json"} {
				out, _, err := fairway(t, "proxy", view, "-n", s.name, client.Name, "-o", format)
				NewWithT(t).Expect(err).NotTo(HaveOccurred(), view)
				NewWithT(t).Expect(out).To(ContainSubstring(has), "%s as %s", view, format)
				if view != "clusters" {
					NewWithT(t).Expect(out).NotTo(ContainSubstring(string(s.pod("server").UID)), "%s of another pod", view)
				}
			}
		}
		out, _, err := fairway(t, "proxy", "routes", "-n", s.name, client.Name)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		NewWithT(t).Expect(out).To(ContainSubstring("no routes of its own"))
		_, notes, err := fairway(t, "proxy", "listeners", "-n", s.name, s.pod("outside").Name)
		NewWithT(t).Expect(err).NotTo(HaveOccurred())
		NewWithT(t).Expect(notes).To(ContainSubstring("OptedOut"))
	})
	waypoints, err := component(t.Context(), s.name, names.ComponentWaypoint)
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(waypoints).NotTo(BeEmpty())
	t.Run("proxy of a waypoint", func(t *testing.T) {
		for view, has := range map[string]string{
			"clusters": names.ServicePort(s.name, "app", 80), "listeners": names.ListenerMTLS, "routes": names.ServicePort(s.name, "app", 80),
		} {
			out, _, err := fairway(t, "proxy", view, "-n", s.name, waypoints[0].Name)
			NewWithT(t).Expect(err).NotTo(HaveOccurred(), view)
			NewWithT(t).Expect(out).To(ContainSubstring(has), view)
		}
	})
	t.Run("metrics", func(t *testing.T) {
		g := NewWithT(t)
		operators, err := component(t.Context(), names.SystemNamespace, names.ComponentOperator)
		g.Expect(err).NotTo(HaveOccurred())
		nodes, err := component(t.Context(), names.SystemNamespace, names.ComponentNode)
		g.Expect(err).NotTo(HaveOccurred())
		g.Eventually(func(g Gomega) { // a stream that reached its age is opened anew
			connected := 0
			for i := range operators { // each proxy is connected to whichever replica it met
				all := families(t, g, &operators[i], names.PortAdmin)
				g.Expect(all).To(HaveKey("fairway_ca_not_after_timestamp_seconds"))
				n, said := connectedNodes(all)
				g.Expect(said).To(BeTrue(), "connected node proxies of %s", operators[i].Name)
				connected += n
			}
			g.Expect(connected).To(Equal(len(nodes)), "connected node proxies")
		}).Should(Succeed())
		for i := range nodes {
			if nodes[i].Spec.NodeName != client.Spec.NodeName {
				continue
			}
			g.Expect(metrics(t, g, &nodes[i], names.PortAdmin)).To(And(
				ContainSubstring("\nfairway_relay_connected 1\n"), ContainSubstring("\nfairway_agent_pods{"),
				ContainSubstring(`envoy_cluster_upstream_cx_total{envoy_cluster_name="`+names.NodeEndpoints(s.name, "server", 80, false)+`"}`)))
		}
		g.Expect(metrics(t, g, &waypoints[0], names.PortAgent)).To(And(
			ContainSubstring("\nfairway_relay_connected 1\n"),
			ContainSubstring(`envoy_cluster_upstream_rq_total{envoy_cluster_name="`+names.ServicePort(s.name, "app", 80)+`"}`)))
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
	relabel(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: pod.Name}}, names.LabelMesh, names.MeshDisabled)
	s.captureIs(corev1.ConditionFalse, "server")
	s.answers("client", "http://server/", "server")
	relabel(t, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: pod.Name}}, names.LabelMesh, "")
	s.captured("server")
	start := since()
	s.answers("client", "http://server/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	NewWithT(t).Expect(s.pod("server").UID).To(Equal(pod.UID))
}
