// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"slices"
	"testing"

	. "github.com/onsi/gomega" //nolint:revive // assertions read as sentences
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// scrapes asks a port of a pod for metrics as Prometheus does.
func scrapes(t *testing.T, pod *corev1.Pod, port int, bearer string) (int, string) {
	t.Helper()
	g := NewWithT(t)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+podPort(t, pod, port)+"/metrics", nil)
	g.Expect(err).NotTo(HaveOccurred())
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // self-signed
	defer c.CloseIdleConnections()
	response, err := c.Do(r)
	g.Expect(err).NotTo(HaveOccurred())
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	g.Expect(err).NotTo(HaveOccurred())
	return response.StatusCode, string(body)
}

// TestPortsAnswerThoseTheyAreFor asks nodes and operator as pods of the cluster can.
func TestPortsAnswerThoseTheyAreFor(t *testing.T) {
	t.Parallel()
	g := NewWithT(t)
	s := newSpace(t)
	s.server("collector")
	collector := s.pod("collector")
	node := nodePods(t)[collector.Spec.NodeName]

	_, err := s.get("collector", fmt.Sprintf("http://%s:%d/readyz", node.Status.HostIP, names.PortAgent))
	g.Expect(err).To(HaveOccurred(), "health is for the node's own kubelet")
	plain, err := s.get("collector", fmt.Sprintf("http://%s:%d/metrics", node.Status.HostIP, names.PortMetrics))
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(plain.Status).To(Equal(http.StatusBadRequest), plain.Body)

	bearer := token(t, &collector) // for the API server itself
	all, err := component(t.Context(), names.SystemNamespace, names.ComponentOperator)
	g.Expect(err).NotTo(HaveOccurred())
	operators := slices.DeleteFunc(all, func(p corev1.Pod) bool { return p.DeletionTimestamp != nil })
	for port, pod := range map[int]*corev1.Pod{names.PortMetrics: node, names.PortOperatorMetrics: &operators[0]} {
		code, body := scrapes(t, pod, port, "")
		g.Expect(code).To(Equal(http.StatusUnauthorized), body)
		code, body = scrapes(t, pod, port, bearer)
		g.Expect(code).To(Equal(http.StatusForbidden), body)
		g.Expect(body).To(ContainSubstring("bind the ClusterRole fairway-metrics"))
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fairway-metrics"},
		Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: s.name, Name: collector.Spec.ServiceAccountName}},
	}
	g.Expect(world.client.Create(t.Context(), binding)).To(Succeed())
	t.Cleanup(func() { _ = world.client.Delete(context.Background(), binding) })
	g.Eventually(func(g Gomega) {
		code, body := scrapes(t, node, names.PortMetrics, bearer)
		g.Expect(code).To(Equal(http.StatusOK), body)
		g.Expect(body).To(ContainSubstring("\nfairway_relay_connected 1\n"))
		code, body = scrapes(t, &operators[0], names.PortOperatorMetrics, bearer)
		g.Expect(code).To(Equal(http.StatusOK), body)
		g.Expect(body).To(ContainSubstring("\nfairway_trust_bundle_roots "))
	}).Should(Succeed())
}
