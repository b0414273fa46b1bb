// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"strings"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

var errNotYet = errors.New("not yet")

// TestNetworkFilterByECDS has the filter by ECDS that says where a pod's mTLS listener leads to. Nobody gets in before
// it is there; when it changes, connections that are open go on as they are and new ones follow; and one that Envoy
// rejects changes nothing.
func TestNetworkFilterByECDS(t *testing.T) {
	const filter = "target/uid-server"
	m := newMesh(t)
	client, n := m.nodes[0].newMember("client", false), m.nodes[1]
	server := n.newPod("server")
	server.greet(8080)
	server.identity = names.SPIFFEID(trustDomain, server.namespace, server.name)
	m.issue(server.identity)
	server.guarded(model.PodGuard{})
	m.destination(model.Destination{
		Address: server.at(8080), Kind: model.DestinationWorkload, Identities: []string{server.identity},
	})

	mtls := server.listenersBut("mtls/")
	filters := mtls.GetFilterChains()[0].GetFilters()
	open := filters[1].GetTypedConfig()
	require.Contains(t, open.GetTypeUrl(), "set_filter_state")
	filters[1] = envoy.NetworkFilterByECDS(filter, &netstatev3.Config{})
	closed := envoy.SetFilterState(
		envoy.FilterState(envoy.FilterStateNetns, envoy.FactoryHashableString, envoy.Literal(server.ns.Path()),
			envoy.SharedOnce),
		envoy.FilterState(envoy.FilterStateOriginalDst, "", server.at(9).String(), statev3.FilterStateValue_NONE),
	).GetTypedConfig()
	set := func(config *anypb.Any) {
		m.apply(n.scope(), filter, &corev3.TypedExtensionConfig{Name: filter, TypedConfig: config})
	}
	to := server.at(8080).String()

	m.apply(n.scope(), mtls.GetName(), mtls)
	n.acked(xds.TypeListener, mtls.GetName())
	says := func(cond func(xds.ResourceState) bool) {
		t.Helper()
		eventually.NoError(t, "the state of the filter", func() error {
			if !cond(n.server.State(n.scope().Key(xds.TypeExtension, filter))) {
				return errNotYet
			}
			return nil
		})
	}
	says(func(s xds.ResourceState) bool { return len(s.Proxies) > 0 }) // Envoy asks, and waits
	server.capture(uint32(v1alpha1.DefaultConnectionsPerPeer))
	requireRefused(t, client, to)
	set(open)
	n.acked(xds.TypeExtension, filter)
	client.reaches(t, to)
	requireHello(t, client, to, "server sees "+client.addr.String())
	session := client.session(to)

	changes := listenerChanges(t, n)
	set(closed)
	n.acked(xds.TypeExtension, filter)
	requireRefused(t, client, to)
	session.alive()

	n.tolerant.Store(true)
	set(envoy.Any(&tcpproxyv3.TcpProxy{}))
	says(func(s xds.ResourceState) bool { return s.Rejection() != "" })
	requireRefused(t, client, to)
	set(open)
	n.acked(xds.TypeExtension, filter)
	requireHello(t, client, to, "server sees "+client.addr.String())
	session.alive()
	require.Equal(t, changes, listenerChanges(t, n), "listeners changed")
}

// listenersBut gives the pod's listeners to its node but for one, and returns that.
func (p *pod) listenersBut(prefix string) (kept *listenerv3.Listener) {
	for _, l := range p.listeners(false) {
		if strings.HasPrefix(l.GetName(), prefix) {
			kept = l
		} else {
			p.mesh.apply(p.node.scope(), l.GetName(), l)
		}
	}
	return kept
}

func listenerChanges(t *testing.T, n *meshNode) string {
	t.Helper()
	page, err := n.proxy.ask("/stats?filter=listener_manager.listener_")
	require.NoError(t, err)
	return page
}
