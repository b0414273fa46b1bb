// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package neighbours

import (
	"context"
	"errors"
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// told is a proxy that says what it was told.
type told struct {
	said  map[string]map[string]*xds.Resource // by type and name: what the operator says
	local map[xds.ID]*xds.Resource
	waits int
	// rejects the filter.
	rejects error
}

func (p *told) SetLocal(_ string, updates []xds.Update) {
	for _, u := range updates {
		p.local[u.ID] = u.Resource
	}
}

func (p *told) WaitSettled(context.Context, xds.ID) error {
	p.waits++
	err := p.rejects
	p.rejects = nil
	return err
}

func (p *told) Current(typeURL string) map[string]*xds.Resource { return p.said[typeURL] }

func (p *told) says(t *testing.T, name string, m proto.Message) xds.ID {
	t.Helper()
	r, err := xds.NewResource(name, m)
	require.NoError(t, err)
	if p.said[r.TypeURL()] == nil {
		p.said[r.TypeURL()] = map[string]*xds.Resource{}
	}
	p.said[r.TypeURL()][name] = r
	return xds.ID{TypeURL: r.TypeURL(), Name: name}
}

func (p *told) guards(t *testing.T, pod translatenode.Pod, g model.PodGuard) xds.ID {
	t.Helper()
	name := names.PodAuthorization(pod.Namespace, pod.Name)
	return p.says(t, name, envoy.Extension(name, authorization.Node(g)))
}

// twoPods is a keeper of two pods, of which one is an endpoint of a Service.
func twoPods(t *testing.T) (*Keeper, *told) {
	t.Helper()
	p := &told{said: map[string]map[string]*xds.Resource{}, local: map[xds.ID]*xds.Resource{}}
	k := New(p, proxymark.From(1, 2), logr.Discard())
	require.NotNil(t, p.local[table], "nobody asks the operator for it")
	endpoints := names.NodeEndpoints(port.Namespace, port.Service, port.Port, false)
	p.says(t, vip.String(), upstream.Destination(model.Destination{
		Address: vip, Kind: model.DestinationService, Port: port, Identities: []string{cart.Identity},
	}))
	p.says(t, endpoints, upstream.NodeEndpoints(endpoints, []model.Endpoint{endpoint(cart, 8080)}))
	p.guards(t, cart, model.PodGuard{})
	p.guards(t, shop, model.PodGuard{})
	k.Captured(cart)
	k.Captured(shop)
	k.Look()
	require.Equal(t, map[string][]string{vip.String(): {"default/cart"}}, k.Ways())
	for _, pod := range []translatenode.Pod{cart, shop} {
		require.NotNil(t, p.local[xds.ID{TypeURL: xds.TypeCluster, Name: translatenode.NeighboursCluster(pod.UID)}])
	}
	return k, p
}

// TestAheadOfChanges: what is about to change leads nowhere before the proxy has it.
func TestAheadOfChanges(t *testing.T) {
	closed := model.PodGuard{Guard: model.Guard{DefaultDeny: true}}
	for name, change := range map[string]struct {
		of    func(t *testing.T, p *told) xds.ID
		after int
	}{
		"a guard":        {func(t *testing.T, p *told) xds.ID { return p.guards(t, cart, closed) }, 0},
		"the same guard": {func(t *testing.T, p *told) xds.ID { return p.guards(t, cart, model.PodGuard{}) }, 1},
		"endpoints": {func(t *testing.T, p *told) xds.ID {
			name := names.NodeEndpoints(port.Namespace, port.Service, port.Port, false)
			return p.says(t, name, upstream.NodeEndpoints(name, []model.Endpoint{endpoint(podOf("far", "10.244.1.1"), 80)}))
		}, 0},
		"who may answer": {func(t *testing.T, p *told) xds.ID {
			return p.says(t, vip.String(), upstream.Destination(model.Destination{
				Address: vip, Kind: model.DestinationService, Port: port, Identities: []string{shop.Identity},
			}))
		}, 0},
	} {
		t.Run(name, func(t *testing.T) {
			k, p := twoPods(t)
			before := *p
			p.said = map[string]map[string]*xds.Resource{}
			for url, all := range before.said {
				p.said[url] = map[string]*xds.Resource{}
				for name, r := range all {
					p.said[url][name] = r
				}
			}
			id := change.of(t, p)
			next := p.said
			p.said = before.said // until the relay applies it
			done := k.Ahead(t.Context(), []xds.ID{id})
			require.Empty(t, k.Ways())
			require.Equal(t, before.waits+1, p.waits, "the proxy knows")
			k.Look()
			require.Empty(t, k.Ways(), "it is still about to change")
			p.said = next
			done()
			k.Look()
			require.Len(t, k.Ways(), change.after)
		})
	}
	t.Run("what nothing depends on", func(t *testing.T) {
		k, p := twoPods(t)
		before := p.waits
		k.Ahead(t.Context(), []xds.ID{p.guards(t, shop, closed)})()
		require.Len(t, k.Ways(), 1)
		require.Equal(t, before, p.waits)
	})
}

func TestPodsThatGo(t *testing.T) {
	k, p := twoPods(t)
	before := p.waits
	k.Released(t.Context(), cart.UID)
	require.Empty(t, k.Ways())
	require.Equal(t, before+1, p.waits)
	k.Look()
	require.Empty(t, k.Ways())
	k.Captured(cart)
	k.Look()
	require.Len(t, k.Ways(), 1)
	k.Forgotten(t.Context(), cart.UID)
	require.Empty(t, k.Ways())
	require.Nil(t, p.local[xds.ID{TypeURL: xds.TypeCluster, Name: translatenode.NeighboursCluster(cart.UID)}])
}

// TestAFilterThatIsRejected: the proxy goes on by the one before, which may lead where nothing may lead any more.
func TestAFilterThatIsRejected(t *testing.T) {
	k, p := twoPods(t)
	k.Captured(podOf("third", "10.244.0.9"))
	k.Look()
	p.rejects = errors.New("no")
	before := p.local[table]
	k.Released(t.Context(), cart.UID)
	require.Empty(t, k.Ways())
	require.NotEqual(t, before.Version(), p.local[table].Version())
}
