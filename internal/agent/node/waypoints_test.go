// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestWaypointsOfTheNodeAreServed, in the network namespaces of their pods, for as long as these are there; others
// aren't.
func TestWaypointsOfTheNodeAreServed(t *testing.T) {
	f := setUp(t)
	ns := netnstest.New(t, "waypoint")
	served := func() bool {
		return ns.Do(func() error {
			c, err := net.Dial("unix", names.ResetsSocket)
			if err == nil {
				err = c.Close()
			}
			return err
		}) == nil
	}
	p := f.pod("waypoint-0", "10.244.1.7", func(p *corev1.Pod) {
		p.Labels[names.LabelComponent], p.Labels[names.LabelGatewayName] = names.ComponentWaypoint, "waypoint"
	})
	f.do(func() { f.sandboxes[string(p.UID)] = ns.Path() })
	f.start()
	eventually.True(t, "the waypoint is served", served)
	require.NoError(t, f.Delete(context.Background(), p))
	eventually.True(t, "it is let go", func() bool { return !served() })

	app := f.pod("cart", "10.244.1.8")
	f.do(func() { f.sandboxes[string(app.UID)] = ns.Path() })
	eventually.True(t, "the pod is captured", func() bool { return f.state(app).Netns == ns.Path() })
	require.False(t, served())
}
