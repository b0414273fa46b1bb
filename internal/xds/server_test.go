// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"fmt"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

func TestWildcardWaitsUntilReadyAndFollowsChanges(t *testing.T) {
	for name, first := range map[string][]string{"legacy": nil, "explicit": {"*"}} {
		t.Run(name, func(t *testing.T) {
			f := newFixture(t, refuseProbe)
			f.apply(cluster(t, "a", 1))
			c := f.connect(testScope, "p")
			c.subscribe(TypeCluster, first...)
			c.quiet()
			f.apply(cluster(t, "b", 1))
			c.quiet()
			f.ready(TypeCluster)
			c.expect(TypeCluster, "a", "b")
			c.quiet()
			f.apply(cluster(t, "b", 2), cluster(t, "a", 1))
			c.expect(TypeCluster, "b")
			f.remove(TypeCluster, "a", "never-was")
			c.expect(TypeCluster, "-a")
			c.quiet()
		})
	}
}

func TestEmptyWildcardIsAnswered(t *testing.T) {
	f := newFixture(t, refuseProbe)
	f.ready(TypeListener)
	c := f.connect(testScope, "p")
	c.subscribe(TypeListener)
	c.expect(TypeListener)
	c.quiet()
}

func TestNamedSubscription(t *testing.T) {
	f := newFixture(t, refuseProbe)
	f.apply(endpoints(t, "a", 1), endpoints(t, "b", 1))
	c := f.connect(testScope, "p")
	c.subscribe(TypeEndpoint, "a", "later")
	c.expect(TypeEndpoint, "a")
	c.quiet() // unknown: wait
	f.apply(endpoints(t, "b", 2))
	c.quiet() // not subscribed
	f.remove(TypeEndpoint, "later")
	c.expect(TypeEndpoint, "-later")
	f.apply(endpoints(t, "later", 1))
	c.expect(TypeEndpoint, "later")
	c.subscribe(TypeEndpoint, "a")
	c.expect(TypeEndpoint, "a") // who asks is answered
	c.unsubscribe(TypeEndpoint, "a")
	c.quiet() // and so it is processed
	f.apply(endpoints(t, "a", 3))
	c.quiet()
	c.subscribe(TypeEndpoint, "a")
	c.expect(TypeEndpoint, "a")
}

func TestNackBisectsAndRemembers(t *testing.T) {
	f := newFixture(t, refuseProbe)
	for i := range 20 {
		f.apply(route(t, fmt.Sprintf("r%02d", i), 1))
	}
	f.ready(TypeRoute)
	c := f.connect(testScope, "p")
	c.reject = func(r *discoveryv3.Resource) string {
		if r.GetName() == "r07" {
			return "bad r07"
		}
		return ""
	}
	c.subscribe(TypeRoute, "*")
	for len(c.has[TypeRoute]) < 19 {
		c.answer(c.recv())
	}
	eventually.True(f.t, "rejection", func() bool {
		return f.server.State(testScope.Key(TypeRoute, "r07")).Rejection() == "bad r07"
	})
	require.Empty(t, f.server.State(testScope.Key(TypeRoute, "r08")).Rejection())
	eventually.True(f.t, "acks", func() bool { return f.server.State(testScope.Key(TypeRoute, "r08")).Settled() })
	c.quiet()
	f.apply(route(t, "r08", 2))
	c.expect(TypeRoute, "r08")
	f.apply(route(t, "r07", 2))
	c.expect(TypeRoute, "r07")
	eventually.True(f.t, "recovery", func() bool {
		return f.server.State(testScope.Key(TypeRoute, "r07")).Proxies[0].State == Acked
	})
}

func TestUnauthenticated(t *testing.T) {
	f := newFixture(t, nil)
	c := f.connect(testScope, "")
	err := <-c.err
	require.Equal(t, codes.Unauthenticated, status.Code(err))
	require.ErrorContains(t, err, "send a token")
}

// stranger opens streams that are refused.
type stranger struct {
	discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer
}

func (stranger) Context() context.Context { return context.Background() }

func TestRefusedStreamsDoNotFloodTheLog(t *testing.T) {
	lines := 0
	s := NewServer(Options{
		Cache:         NewCache(),
		Authenticator: AuthenticatorFunc(func(context.Context) (Proxy, error) { return Proxy{}, errors.New("a bad token") }),
		Log:           funcr.New(func(_, _ string) { lines++ }, funcr.Options{}),
	})
	for range 10_000 {
		require.Error(t, s.DeltaAggregatedResources(stranger{}))
	}
	require.GreaterOrEqual(t, lines, firstRefusals)
	require.Less(t, lines, 100)
}
