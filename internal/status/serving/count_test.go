// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// ledger is what proxies of any kind made of resources.
type ledger map[xds.Key][]xds.ProxyAck

func (l ledger) State(k xds.Key) xds.ResourceState { return xds.ResourceState{Proxies: l[k]} }

func ack(pod string, state xds.AckState) xds.ProxyAck {
	return xds.ProxyAck{Proxy: xds.Proxy{Pod: pod, PodUID: pod}, State: state, Version: "v", Error: "its own words"}
}

// TestCountsOfAnyProxies: a status may depend on waypoints, on nodes, or on several of them.
func TestCountsOfAnyProxies(t *testing.T) {
	of := func(name string, acks ...xds.ProxyAck) (need, xds.Key, []xds.ProxyAck) {
		gateway := types.NamespacedName{Namespace: "bookshop", Name: name}
		table := catalogue.WaypointScope(gateway).Key(xds.TypeRoute, "service/bookshop/web/80")
		return need{serving: catalogue.Serving(gateway), resources: []xds.Key{table}}, table, acks
	}
	one, table1, acks1 := of("one", ack("a", xds.Acked), ack("b", xds.Acked))
	two, table2, acks2 := of("two", ack("c", xds.Acked), ack("d", xds.Pending))
	dialled := catalogue.AllNodes.Key(xds.TypeCluster, "10.96.0.10:80")
	nodes := need{resources: []xds.Key{dialled}}
	acks := ledger{
		one.serving: acks1, table1: acks1, two.serving: acks2, table2: acks2,
		dialled: {ack("n1", xds.Acked), ack("n2", xds.Pending), ack("n3", xds.Pending)},
	}
	for what, c := range map[string]struct {
		needs []need
		want  count
	}{
		"nothing":       {},
		"a waypoint":    {[]need{one}, count{serving: 2, acked: 2}},
		"two waypoints": {[]need{one, two}, count{serving: 4, acked: 3}},
		"nodes alone":   {[]need{nodes}, count{behind: "n2"}},
		"all of them":   {[]need{nodes, one, two}, count{serving: 4, acked: 3, behind: "n2"}},
	} {
		require.Equal(t, c.want, countOf(acks, c.needs), what)
	}
	besides := one
	besides.resources, besides.besides = nil, []xds.Key{table1}
	acks[table1] = []xds.ProxyAck{ack("a", xds.Pending)}
	require.Equal(t, count{serving: 2, acked: 2}, countOf(acks, []need{besides}), "nobody rejects it")
	acks[table1] = []xds.ProxyAck{ack("a", xds.Rejected)}
	require.NotEmpty(t, countOf(acks, []need{besides}).rejection)
	acks[table1] = acks1
	acks[dialled] = append(acks[dialled], ack("n4", xds.Rejected))
	require.Equal(t, "Proxy n4 rejects cluster 10.96.0.10:80 and keeps the last good version: its own words",
		countOf(acks, []need{one, nodes}).rejection)
	require.Equal(t, []xds.Key{one.serving, table1, dialled}, resourcesOf([]need{one, nodes}))
}
