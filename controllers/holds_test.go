// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
)

// TestProgrammedIsHeldWhileProxiesReconnect: a waypoint that serves stays Programmed for a while without
// acknowledgements, unless its spec changes or a proxy rejects.
func TestProgrammedIsHeldWhileProxiesReconnect(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		g := &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "waypoint", Generation: 1}}
		g.Spec.Listeners = []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: ingest.ProtocolMTLS}}
		hold := &status.Hold{}
		observe := func(acked int, rejected string) (string, time.Duration) {
			o := waypointObserved{
				mesh: true, enrolled: true, trustBundle: true, clusterIPs: []string{"10.96.0.9"}, acked: acked, rejected: rejected,
				deployment: &appsv1.Deployment{Status: appsv1.DeploymentStatus{ReadyReplicas: 2}},
			}
			left := waypointStatus(g, o, hold).Again
			c := meta.FindStatusCondition(g.Status.Conditions, string(gwv1.GatewayConditionProgrammed))
			return string(c.Status) + " " + c.Message, left
		}
		said, left := observe(0, "")
		require.Contains(t, said, "False 0 of 2", "it never served")
		require.Zero(t, left)
		said, _ = observe(2, "")
		require.Equal(t, "True 2/2 proxies serve.", said)

		said, left = observe(0, "")
		require.Equal(t, "True 2/2 proxies serve.", said)
		require.Equal(t, status.HoldTime, left)
		time.Sleep(status.HoldTime - time.Second)
		said, left = observe(1, "")
		require.Equal(t, "True 2/2 proxies serve.", said)
		require.Equal(t, time.Second, left)
		time.Sleep(time.Second)
		said, left = observe(1, "")
		require.Contains(t, said, "False 1 of 2")
		require.Zero(t, left)

		_, _ = observe(2, "")
		said, _ = observe(1, "cluster x: bad")
		require.Contains(t, said, "cluster x: bad")
		_, _ = observe(2, "")
		g.Generation = 2
		said, _ = observe(0, "")
		require.Contains(t, said, "False 0 of 2")
	})
}
