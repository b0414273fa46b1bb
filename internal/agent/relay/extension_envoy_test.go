// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	httprbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

func policyOf(t testing.TB, m proto.Message) *xds.Resource {
	t.Helper()
	return must(t, "policy", &corev3.TypedExtensionConfig{Name: "policy", TypedConfig: envoy.Any(m)})
}

// closed and open are policies.
func closed(t testing.TB) *xds.Resource {
	t.Helper()
	return policyOf(t, &httprbacv3.RBAC{Rules: &rbacv3.RBAC{Action: rbacv3.RBAC_ALLOW}})
}

func open(t testing.TB) *xds.Resource { t.Helper(); return policyOf(t, &httprbacv3.RBAC{}) }

// guarded answers 200 where the policy lets a request through.
func guarded(t testing.TB, port int) *xds.Resource {
	t.Helper()
	hcm := &hcmv3.HttpConnectionManager{
		StatPrefix: "guarded",
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{
			VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
			}}}},
		}},
		HttpFilters: []*hcmv3.HttpFilter{
			envoy.HTTPFilterByECDS("policy", &httprbacv3.RBAC{}), envoy.HTTPFilter("router", &routerv3.Router{}),
		},
	}
	return must(t, "guarded", &listenerv3.Listener{
		Name: "guarded", Address: socketAddress(port),
		FilterChains: []*listenerv3.FilterChain{{Filters: []*listenerv3.Filter{envoy.NetworkFilter("hcm", hcm)}}},
	})
}

// TestExtensionsThroughTheRelay runs a real Envoy with a filter's configuration from the operator.
func TestExtensionsThroughTheRelay(t *testing.T) {
	xdstest.Binary(t)
	const forbidden = "403 RBAC: access denied"
	o := newOperator(t)
	accepted := make(chan string, 100)
	a := startRelay(t, Options{Dial: o.dial, Accepted: func(name, version string, packed *anypb.Any) {
		r, err := xds.NewRawResource(name, "", packed)
		if err != nil || r.Version() != version {
			t.Errorf("%s %s: %v", name, version, err)
		}
		accepted <- version
	}})
	// tellsOf waits until somebody heard what Envoy goes by, and heard nothing else than what it had before.
	tellsOf := func(before, now *xds.Resource) {
		for version := range accepted {
			if version == now.Version() {
				return
			}
			require.Equal(t, before.Version(), version)
		}
	}
	port := xdstest.FreePort(t)
	o.apply(guarded(t, port), closed(t))
	o.cache.Ready(nodeScope, xds.TypeCluster)
	o.cache.Ready(nodeScope, xds.TypeListener)
	start := func() *xdstest.Envoy {
		return xdstest.Start(t, xdstest.Options{XDSSocket: a.socket, Wildcards: true})
	}
	e := start()
	e.Eventually("the first policy", func() bool { return xdstest.Fetch(port) == forbidden })
	tellsOf(closed(t), closed(t))
	o.apply(open(t))
	e.Eventually("another", func() bool { return xdstest.Fetch(port) == "200 " })
	e.Eventually("ACK at the operator", func() bool { s, _ := o.state(open(t)); return s == xds.Acked })
	tellsOf(closed(t), open(t))
	o.apply(closed(t))
	e.Eventually("ACK at the operator", func() bool { s, _ := o.state(closed(t)); return s == xds.Acked })
	tellsOf(open(t), closed(t))

	bad := policyOf(t, &clusterv3.Cluster{})
	o.apply(bad)
	e.Eventually("NACK at the operator", func() bool {
		s, text := o.state(bad)
		return s == xds.Rejected && contains(text, "filter config has type URL")
	})
	require.Equal(t, forbidden, xdstest.Fetch(port))
	for len(accepted) > 0 {
		require.Equal(t, closed(t).Version(), <-accepted, "it goes by no other")
	}

	o.stop()
	e.Stop()
	e = start()
	e.Eventually("the last good one, the operator away", func() bool { return xdstest.Fetch(port) == forbidden })
	e.Stop()
	a.stop()

	// A proxy that starts with an agent that knows nothing gets what the one before it took.
	o.start()
	a = startRelay(t, Options{Dial: o.dial})
	e = start()
	e.Eventually("NACK at the operator", func() bool { s, _ := o.state(bad); return s == xds.Rejected })
	e.Eventually("what another proxy took last", func() bool { return xdstest.Fetch(port) == forbidden })
	o.apply(open(t))
	e.Eventually("the next one", func() bool { return xdstest.Fetch(port) == "200 " })
}

// TestTheAgentRefusesUntilTheOperatorSays who may pass: it has a listener served that waits for nobody, and hands over.
func TestTheAgentRefusesUntilTheOperatorSays(t *testing.T) {
	xdstest.Binary(t)
	o := newOperator(t)
	o.stop()
	a := startRelay(t, Options{Dial: o.dial, Local: []string{xds.TypeListener, xds.TypeCluster}})
	port := xdstest.FreePort(t)
	a.SetLocal(xds.TypeExtension, []xds.Update{xds.Set(closed(t))})
	a.SetLocal(xds.TypeListener, []xds.Update{xds.Set(guarded(t, port))})
	a.LocalReady(xds.TypeListener)
	a.LocalReady(xds.TypeCluster)
	e := xdstest.Start(t, xdstest.Options{XDSSocket: a.socket, Wildcards: true})
	e.Eventually("refused", func() bool { return xdstest.Fetch(port) == "403 RBAC: access denied" })
	a.SetLocal(xds.TypeExtension, []xds.Update{xds.Gone(xds.ID{TypeURL: xds.TypeExtension, Name: "policy"})})
	require.Equal(t, "403 RBAC: access denied", xdstest.Fetch(port))
	o.start()
	o.apply(open(t))
	e.Eventually("as the operator says", func() bool { return xdstest.Fetch(port) == "200 " })
}
