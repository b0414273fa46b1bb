// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// scrapes asks a port of a pod for metrics as Prometheus does.
func scrapes(t *testing.T, pod *corev1.Pod, port int, bearer string) (int, string) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "https://"+podPort(t, pod, port)+"/metrics", nil)
	require.NoError(t, err)
	if bearer != "" {
		r.Header.Set("Authorization", "Bearer "+bearer)
	}
	c := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // self-signed
	defer c.CloseIdleConnections()
	response, err := c.Do(r)
	require.NoError(t, err)
	defer response.Body.Close()
	body, err := io.ReadAll(response.Body)
	require.NoError(t, err)
	return response.StatusCode, string(body)
}

// TestPortsAnswerThoseTheyAreFor asks nodes and operator as pods of the cluster can.
func TestPortsAnswerThoseTheyAreFor(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.server("collector")
	collector := s.pod("collector")
	node := nodePods(t)[collector.Spec.NodeName]

	_, err := s.get("collector", fmt.Sprintf("http://%s:%d/readyz", node.Status.HostIP, names.PortAgent))
	require.Error(t, err, "a waypoint's port")
	plain, err := s.get("collector", fmt.Sprintf("http://%s:%d/metrics", node.Status.HostIP, names.PortMetrics))
	require.NoError(t, err)
	require.Equal(t, http.StatusBadRequest, plain.Status, plain.Body)

	bearer := token(t, &collector) // for the API server itself
	operators := operatorPods(t)
	for port, pod := range map[int]*corev1.Pod{names.PortMetrics: node, names.PortOperatorMetrics: &operators[0]} {
		code, body := scrapes(t, pod, port, "")
		require.Equal(t, http.StatusUnauthorized, code, body)
		code, body = scrapes(t, pod, port, bearer)
		require.Equal(t, http.StatusForbidden, code, body)
		require.Contains(t, body, "bind the ClusterRole fairway-metrics")
	}
	binding := &rbacv1.ClusterRoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: s.name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: "fairway-metrics"},
		Subjects: []rbacv1.Subject{{
			Kind: rbacv1.ServiceAccountKind, Namespace: s.name,
			Name: collector.Spec.ServiceAccountName,
		}},
	}
	require.NoError(t, world.client.Create(t.Context(), binding))
	t.Cleanup(func() { _ = world.client.Delete(context.Background(), binding) })
	eventually.Passes(t, "metrics for whom the ClusterRole is bound to", func(look require.TestingT) {
		code, body := scrapes(t, node, names.PortMetrics, bearer)
		require.Equal(look, http.StatusOK, code, body)
		require.Contains(look, body, "\nfairway_relay_connected 1\n")
		code, body = scrapes(t, &operators[0], names.PortOperatorMetrics, bearer)
		require.Equal(look, http.StatusOK, code, body)
		require.Contains(look, body, "\nfairway_trust_bundle_roots ")
	})
}
