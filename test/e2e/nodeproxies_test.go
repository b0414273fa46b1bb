// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// goes ends a TCP server, and so its connections.
func (s *space) goes(server string) {
	s.t.Helper()
	require.NoError(s.t, world.client.Delete(s.t.Context(),
		&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: server}},
		client.PropagationPolicy(metav1.DeletePropagationBackground)))
}

// onEveryNode has a pod of a client on each node.
func (s *space) onEveryNode(name string) (clients []string) {
	s.t.Helper()
	var nodes corev1.NodeList
	require.NoError(s.t, world.client.List(s.t.Context(), &nodes))
	for _, n := range nodes.Items {
		client := name + "-" + n.Name
		s.client(client, func(d *appsv1.Deployment) {
			d.Spec.Template.Spec.NodeSelector = map[string]string{corev1.LabelHostname: n.Name}
		})
		clients = append(clients, client)
	}
	return clients
}

// TestNodeProxiesEndWithTheirConnections: what is open from before lives on while node proxies are replaced, whether
// they are rolled out or their pods deleted. The former ones take nothing new, and are gone soon after the last
// connection.
func TestNodeProxiesEndWithTheirConnections(t *testing.T) {
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	clients := s.onEveryNode("client")
	s.captured(clients...)
	for i, r := range []struct {
		how     string
		replace func()
	}{
		{"rolled out", func() { rollOut(t, nodeProxies()) }},
		{"deleted", func() { replaced(t, names.SystemNamespace, names.ComponentNode, nil) }},
	} {
		server := fmt.Sprintf("lines-%d", i)
		lines := s.tcpServer(server)
		s.captured(server)
		open := map[string]*conversation{}
		for _, c := range clients {
			open[c] = s.converse(c, lines.Spec.ClusterIP+":80")
		}
		r.replace()
		nodesRolledOut(t)
		draining(t, len(clients))
		for client, c := range open {
			select {
			case err := <-c.ended:
				t.Errorf("%s: the connection of %s ended: %v", r.how, client, err)
			default:
			}
		}
		s.goes(server)
		goneWithTheirConnections(t)
	}
	// The agents that are left do all of the work.
	s.server("late")
	s.captured("late")
}

func drainingPods(look require.TestingT) []corev1.Pod {
	pods, err := component(context.Background(), names.SystemNamespace, names.ComponentNodeDraining)
	require.NoError(look, err)
	return pods
}

// draining waits until the former proxies of all nodes listen no longer, and have connections.
func draining(t *testing.T, want int) {
	t.Helper()
	eventually.PassesWithin(t, time.Minute, "the former node proxies drain", func(look require.TestingT) {
		pods := drainingPods(look)
		require.Len(look, pods, want)
		for i := range pods {
			log, err := world.clientset.CoreV1().Pods(pods[i].Namespace).GetLogs(
				pods[i].Name, &corev1.PodLogOptions{Container: "agent"}).DoRaw(t.Context())
			require.NoError(look, err)
			require.Contains(look, string(log), "the proxy's listeners are closed")
			require.NotContains(look, string(log), "may be reset", "what waits to be accepted goes to the other proxy")
		}
	})
}

// goneWithTheirConnections: proxies that have no connection left end long before their time is over.
func goneWithTheirConnections(t *testing.T) {
	t.Helper()
	eventually.PassesWithin(t, 2*time.Minute, "the former node proxies are gone", func(look require.TestingT) {
		require.Empty(look, drainingPods(look))
	})
}
