// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/internal/xds"
)

func TestJudge(t *testing.T) {
	for _, tc := range []struct {
		name         string
		p            proxy
		theirs, here string
		want         xds.AckState
	}{
		{"runs it", proxy{State: xds.Acked, Runs: "1"}, "1", "1", xds.Acked},
		{"runs it, and is sent another one", proxy{State: xds.Pending, Runs: "1"}, "2", "1", xds.Pending},
		{"runs it, and may have another one", proxy{State: xds.Pending, Runs: "1", Moving: true}, "1", "1", xds.Pending},
		{"runs what is old here", proxy{State: xds.Acked, Runs: "1"}, "1", "2", xds.Pending},
		{"not derived here yet", proxy{State: xds.Acked, Runs: "1"}, "1", "", xds.Pending},
		{"has nothing", proxy{State: xds.Pending}, "1", "1", xds.Pending},
		{"rejects it", proxy{State: xds.Rejected, Runs: "1", Error: "no"}, "2", "2", xds.Rejected},
		{"rejects another", proxy{State: xds.Rejected, Runs: "1", Error: "no"}, "2", "3", xds.Pending},
		{"rejects what is newer there", proxy{State: xds.Rejected, Runs: "1", Error: "no"}, "2", "1", xds.Acked},
		{"knows that it does not exist", proxy{State: xds.Acked}, "", "", xds.Acked},
		{"has what does not exist here", proxy{State: xds.Acked, Runs: "1"}, "1", "", xds.Pending},
	} {
		t.Run(tc.name, func(t *testing.T) { assert.Equal(t, tc.want, tc.p.judge(scope, tc.theirs, tc.here).State) })
	}
}

func TestInterestsNeverTakeFromEachOther(t *testing.T) {
	k := scope.Key(xds.TypeRoute, route)
	var got []xds.Interest
	n := NewInterests(func(i xds.Interest) { got = append(got, i) })
	wanted := xds.Interest{Key: scope.Key(xds.TypeRoute, route), Wanted: true}
	gone := wanted
	gone.Wanted = false
	left := gone
	left.Disconnected = true
	step := func(what string, f func(), want ...xds.Interest) {
		t.Helper()
		got = nil
		f()
		require.Equal(t, want, got, what)
	}
	step("first elsewhere", func() { n.add(k) }, wanted)
	step("second elsewhere", func() { n.add(k) })
	step("here too", func() { n.Here(wanted) }, wanted)
	step("gone here", func() { n.Here(gone) })
	step("one gone elsewhere", func() { n.remove(k, false) })
	step("all gone", func() { n.remove(k, true) }, left)
	step("here", func() { n.Here(wanted) }, wanted)
	step("elsewhere", func() { n.add(k) })
	step("gone elsewhere", func() { n.remove(k, true) })
	step("gone here", func() { n.Here(gone) }, gone)
	node := xds.Interest{Key: xds.Scope("node/n").Key(xds.TypeCluster, "10.0.0.1:80")}
	step("what no status needs passes through", func() { n.Here(node) }, node)
	require.Empty(t, n.local)
	require.Empty(t, n.remote)
}

func TestEntriesAreBounded(t *testing.T) {
	es := newEntries()
	e := entry{Scope: scope, TypeURL: xds.TypeRoute, Name: route, Proxies: make([]proxy, maxRecords/2)}
	require.True(t, es.put(e))
	require.True(t, es.put(e), "a replacement counts once")
	other := e
	other.Name = "other"
	require.False(t, es.put(other))
	e.Proxies = nil
	require.True(t, es.put(e))
	require.Zero(t, es.records)
	require.Empty(t, es.of)
}

func TestAddresses(t *testing.T) {
	pod := func(name string) *corev1.ObjectReference { return &corev1.ObjectReference{Kind: "Pod", Name: name} }
	slices := []discoveryv1.EndpointSlice{
		{
			ObjectMeta: metav1.ObjectMeta{Name: "4"}, AddressType: discoveryv1.AddressTypeIPv4,
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"10.0.0.1"}, TargetRef: pod("me")},
				{Addresses: []string{"10.0.0.2"}, TargetRef: pod("b"), Conditions: discoveryv1.EndpointConditions{
					Ready: new(bool),
				}},
				{Addresses: []string{"10.0.0.3"}, TargetRef: pod("c")},
				{},
			},
		},
		{
			ObjectMeta: metav1.ObjectMeta{Name: "6"}, AddressType: discoveryv1.AddressTypeIPv6,
			Endpoints: []discoveryv1.Endpoint{
				{Addresses: []string{"fd00::1"}, TargetRef: pod("me")},
				{Addresses: []string{"fd00::2"}, TargetRef: pod("b")},
				{Addresses: []string{"fd00::4"}},
			},
		},
		{AddressType: discoveryv1.AddressTypeFQDN, Endpoints: []discoveryv1.Endpoint{{Addresses: []string{"example.com"}}}},
	}
	require.Equal(t, []string{"10.0.0.2:15014", "10.0.0.3:15014", "[fd00::4]:15014"}, addressesOf(slices, "me"))
	require.Empty(t, addressesOf(nil, ""))
}
