// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"testing"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// policy is an extension configuration whose content follows v.
func policy(t testing.TB, v int) *Resource {
	return extension(t, "policy", wrapperspb.String(fmt.Sprint(v)))
}

// TestExtensionsComeBeforeWhatLeadsToThem, and after the clusters that they may name.
func TestExtensionsComeBeforeWhatLeadsToThem(t *testing.T) {
	f, c := started(t)
	f.apply(policy(t, 1))
	c.subscribe(TypeExtension, "policy")
	c.expect(TypeExtension, "policy")
	f.apply(listener(t, "l1", 2), route(t, "r1", 2), policy(t, 2), edsCluster(t, "c2", time.Second))
	clusters := c.recv()
	require.Equal(t, describe(TypeCluster, []string{"c2"}), describe(clusters.GetTypeUrl(), contents(clusters)))
	c.quiet()
	c.ack(clusters)
	policies := c.recv()
	require.Equal(t, describe(TypeExtension, []string{"policy"}), describe(policies.GetTypeUrl(), contents(policies)))
	c.quiet()
	c.nack(policies, "no") // one that is rejected holds up nothing
	c.expect(TypeRoute, "r1")
	c.expect(TypeListener, "l1")
}

// TestExtensionsAreNotTakenAway from who still asks for them; who has none is told that there is none.
func TestExtensionsAreNotTakenAway(t *testing.T) {
	f, c := started(t)
	f.apply(policy(t, 1))
	c.subscribe(TypeExtension, "policy")
	c.expect(TypeExtension, "policy")
	f.remove(TypeExtension, "policy")
	c.quiet()
	other := f.connect(testScope, "other")
	other.subscribe(TypeExtension, "policy")
	other.expect(TypeExtension, "-policy")
	f.apply(policy(t, 2))
	c.expect(TypeExtension, "policy")
	other.expect(TypeExtension, "policy")
}

// TestWhoStartsGetsWhatOthersTook instead of what it rejects, and its rejection stands.
func TestWhoStartsGetsWhatOthersTook(t *testing.T) {
	f, old := started(t)
	version := func(r *discoveryv3.DeltaDiscoveryResponse) string { return r.GetResources()[0].GetVersion() }
	state := func(pod string) ProxyAck {
		for _, a := range f.server.State(testScope.Key(TypeExtension, "policy")).Proxies {
			if a.Proxy.Pod == pod {
				return a
			}
		}
		return ProxyAck{}
	}
	f.apply(policy(t, 1))
	old.subscribe(TypeExtension, "policy")
	old.expect(TypeExtension, "policy")
	f.apply(policy(t, 2))
	old.nack(old.recv(), "no")
	old.quiet() // it goes on with what it has

	fresh := f.connect(testScope, "fresh")
	fresh.subscribe(TypeExtension, "policy")
	current := fresh.recv()
	require.Equal(t, policy(t, 2).Version(), version(current))
	fresh.nack(current, "no")
	instead := fresh.recv()
	require.Equal(t, policy(t, 1).Version(), version(instead))
	fresh.ack(instead)
	eventually.True(f.t, "the rejection stands", func() bool {
		a := state("fresh")
		return a.State == Rejected && a.Version == policy(t, 1).Version() && a.Error == "no"
	})
	fresh.quiet()

	// One that rejects that, too, has nothing.
	odd := f.connect(testScope, "odd")
	odd.subscribe(TypeExtension, "policy")
	odd.nack(odd.recv(), "no")
	odd.nack(odd.recv(), "never")
	odd.quiet()
	require.Equal(t, "no", state("odd").Error)

	f.apply(policy(t, 3))
	for _, c := range []*client{old, fresh, odd} {
		r := c.recv()
		require.Equal(t, policy(t, 3).Version(), version(r))
		c.ack(r)
	}
	eventually.True(f.t, "all have it", func() bool {
		return f.server.State(testScope.Key(TypeExtension, "policy")).Settled()
	})
	require.Equal(t, Acked, state("odd").State)
}
