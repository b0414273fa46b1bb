// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"path/filepath"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// service is a load assignment with a number of endpoints.
func service(t testing.TB, name string, n int) *xds.Resource {
	l := &endpointv3.LocalityLbEndpoints{}
	for i := range n {
		l.LbEndpoints = append(l.LbEndpoints, &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{
			Endpoint: &endpointv3.Endpoint{Address: socketAddress(1 + i)},
		}})
	}
	return must(t, name, &endpointv3.ClusterLoadAssignment{
		ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{l},
	})
}

// dials has Envoy ask for clusters and their endpoints.
func (e *fakeEnvoy) dials(clusters ...string) {
	e.subscribe(xds.TypeCluster, clusters...)
	e.subscribe(xds.TypeEndpoint, clusters...)
}

// endpoints that Envoy has, by load assignment.
func (a *agent) endpoints(e *fakeEnvoy) map[string]int {
	out := map[string]int{}
	for _, r := range a.list(xds.TypeEndpoint) {
		n, _, err := upstream.CountEndpoints(r.Any())
		require.NoError(a.t, err)
		if e.runs(r) {
			out[r.Name()] = n
		}
	}
	return out
}

func (a *agent) gives(e *fakeEnvoy, want map[string]int) {
	a.t.Helper()
	eventually.True(a.t, fmt.Sprint(want), func() bool {
		return fmt.Sprint(a.endpoints(e)) == fmt.Sprint(want)
	})
}

func gauge(t testing.TB, g prometheus.Gauge) float64 {
	t.Helper()
	var m dto.Metric
	require.NoError(t, g.Write(&m))
	return m.GetGauge().GetValue()
}

// TestEndpointsAreBounded: who comes when there is no room gets few endpoints, until it is known that it wants less
// than others.
func TestEndpointsAreBounded(t *testing.T) {
	o := newOperator(t)
	opts := Options{Dial: o.dial, MaxEndpoints: 100, NodeID: "n1", SnapshotPath: filepath.Join(t.TempDir(), "snapshot")}
	a := startRelay(t, opts)
	for _, name := range []string{"big", "bigger", "late", "small"} {
		o.apply(edsCluster(t, name))
	}
	big := service(t, "big", 100)
	o.apply(big, service(t, "bigger", 500), service(t, "late", 80), service(t, "small", 8))
	e := a.envoy(nil)
	e.dials("big")
	a.gives(e, map[string]int{"big": 100})
	require.False(t, a.Short())
	e.dials("bigger")
	a.gives(e, map[string]int{"big": 100, "bigger": 16})
	e.dials("small")
	e.dials("late")
	a.gives(e, map[string]int{"big": 100, "bigger": 16, "late": 8, "small": 8})
	require.True(t, a.Short())
	require.EqualValues(t, 100, gauge(t, a.metrics.endpoints))
	require.EqualValues(t, 484+72, gauge(t, a.metrics.endpointsOut))
	eventually.True(a.t, "ACK of what it got", func() bool {
		s, _ := o.state(service(t, "late", 80))
		return s == xds.Acked
	})

	a.Prefer([][]string{{"big", "bigger"}, {"late"}})
	a.gives(e, map[string]int{"big": 36, "bigger": 8, "late": 80, "small": 8})

	// An agent that restarts goes on with that, and so does an operator.
	a.stop()
	e.stop()
	a = startRelay(t, opts)
	e = a.envoy(nil)
	e.dials("big", "bigger", "late", "small")
	a.gives(e, map[string]int{"big": 36, "bigger": 8, "late": 80, "small": 8})
	o.stop()
	eventually.True(a.t, "operator away", func() bool { return !a.Status().Connected })
	o.start()
	eventually.True(a.t, "operator back", func() bool { return a.Status().Connected })
	received := count(t, a.metrics.received)

	// What others need no more, who is short gets at the next look.
	o.apply(service(t, "late", 20))
	a.gives(e, map[string]int{"big": 36, "bigger": 8, "late": 20, "small": 8})
	require.LessOrEqual(t, count(t, a.metrics.received), received+2, "only what may be more is asked for again")
	a.Prefer([][]string{{"big", "bigger"}, {"late"}})
	a.gives(e, map[string]int{"big": 96, "bigger": 8, "late": 20, "small": 8})
	o.apply(service(t, "big", 10), service(t, "bigger", 30))
	a.gives(e, map[string]int{"big": 10, "bigger": 30, "late": 20, "small": 8})
	require.False(t, a.Short())
}

// TestClustersShareTheirRoom: each cluster that takes its endpoints from an assignment has them for itself.
func TestClustersShareTheirRoom(t *testing.T) {
	o := newOperator(t)
	a := startRelay(t, Options{Dial: o.dial, MaxEndpoints: 100, MaxOnDemand: 7, NodeID: "n1"})
	o.apply(service(t, "waypoint", 50))
	e := a.envoy(nil)
	for n, want := range []int{50, 50, 41, 33} {
		c := edsClusterOf(t, fmt.Sprint("service-", n), "waypoint")
		o.apply(c)
		e.subscribe(xds.TypeCluster, c.Name())
		if n == 0 {
			e.subscribe(xds.TypeEndpoint, "waypoint")
		}
		eventually.True(a.t, "cluster", func() bool { return e.runs(c) })
		a.gives(e, map[string]int{"waypoint": want})
	}
	// They count for more than an address without endpoints.
	last := cluster(t, "pod", 1)
	o.apply(last)
	e.subscribe(xds.TypeCluster, "pod")
	eventually.True(a.t, "cluster", func() bool { return e.runs(last) })
	e.subscribe(xds.TypeCluster, "another")
	eventually.True(a.t, "no more clusters", func() bool { a.Prefer(nil); return e.knowsGone(xds.TypeCluster, "another") })
}
