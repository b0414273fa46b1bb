// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package neighbours

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

const domain = "cluster.local"

var (
	cart = podOf("cart", "10.244.0.2", "fd00:244::2")
	shop = podOf("shop", "10.244.0.3")
	vip  = netip.MustParseAddrPort("10.96.0.9:80")
	port = model.ServicePort{Namespace: "default", Service: "web", Port: 80}
)

func podOf(name string, ips ...string) translatenode.Pod {
	p := translatenode.Pod{
		UID: "uid-" + name, Namespace: "default", Name: name, Identity: names.SPIFFEID(domain, "default", name),
		Netns: "/var/run/netns/" + name,
	}
	for _, ip := range ips {
		p.IPs = append(p.IPs, netip.MustParseAddr(ip))
	}
	return p
}

func endpoint(p translatenode.Pod, port uint16, change ...func(*model.Endpoint)) model.Endpoint {
	e := model.Endpoint{Address: netip.AddrPortFrom(p.IPs[0], port), MTLS: true, Identity: p.Identity}
	for _, c := range change {
		c(&e)
	}
	return e
}

// known is what there is to know of a Service of some endpoints, with what callers take for who may answer.
func known(t *testing.T, list []model.Endpoint, change ...func(*model.Destination)) Known {
	t.Helper()
	d := model.Destination{Address: vip, Kind: model.DestinationService, Port: port}
	for _, e := range list {
		d.Identities = append(d.Identities, e.Identity)
	}
	for _, c := range change {
		c(&d)
	}
	c, err := upstream.ReadDialled(envoy.Any(upstream.Destination(d)))
	require.NoError(t, err)
	k := Known{
		Pods:    []translatenode.Pod{cart, shop},
		Dialled: map[string]upstream.Dialled{d.Address.String(): c}, Endpoints: map[string]upstream.Takers{},
		Open: map[string]bool{"default/cart": true, "default/shop": true},
	}
	if c.Endpoints != "" {
		k.Endpoints[c.Endpoints], err = upstream.ReadTakers(envoy.Any(upstream.NodeEndpoints(c.Endpoints, list)))
		require.NoError(t, err)
	}
	return k
}

func TestWays(t *testing.T) {
	far := podOf("far", "10.244.1.2")
	of := func(e ...model.Endpoint) []model.Endpoint { return e }
	services := func(e []model.Endpoint, change ...func(*model.Destination)) func(t *testing.T) Known {
		return func(t *testing.T) Known { return known(t, e, change...) }
	}
	with := func(k func(t *testing.T) Known, change func(*Known)) func(t *testing.T) Known {
		return func(t *testing.T) Known { out := k(t); change(&out); return out }
	}
	alone := services(of(endpoint(cart, 8080)))
	both := of(endpoint(cart, 8080), endpoint(shop, 8080))
	for name, c := range map[string]struct {
		known func(t *testing.T) Known
		to    []string
	}{
		"one of the node":     {alone, []string{"10.244.0.2:8080"}},
		"two of the node":     {services(both), []string{"10.244.0.2:8080", "10.244.0.3:8080"}},
		"one of another node": {services(of(endpoint(far, 8080))), nil},
		"one of each":         {services(of(endpoint(cart, 8080), endpoint(far, 8080))), nil},
		"nobody":              {services(nil), nil},
		"one in plain text":   {services(of(endpoint(cart, 8080, func(e *model.Endpoint) { e.MTLS = false }))), nil},
		"and one in plain text": {
			services(of(both[0], endpoint(shop, 8080, func(e *model.Endpoint) { e.MTLS = false }))), nil,
		},
		"the nearest": {
			services(of(both[0], endpoint(far, 8080, func(e *model.Endpoint) { e.Distance = 1 }))),
			[]string{"10.244.0.2:8080"},
		},
		"one that drains, before none": {
			services(of(endpoint(cart, 8080, func(e *model.Endpoint) { e.Draining = true }))), []string{"10.244.0.2:8080"},
		},
		"the client decides among two": {services(both, func(d *model.Destination) { d.ClientIP = true }), nil},
		"the client decides among one": {
			services(both[:1], func(d *model.Destination) { d.ClientIP = true }), []string{"10.244.0.2:8080"},
		},
		"who may not answer": {
			services(both[:1], func(d *model.Destination) { d.Identities = []string{shop.Identity} }), nil,
		},
		"nobody may answer": {services(both[:1], func(d *model.Destination) { d.Identities = nil }), nil},
		"whose namespace may answer": {
			services(both[:1], func(d *model.Destination) {
				d.Identities = nil
				for n := range 20 {
					d.Identities = append(d.Identities, names.SPIFFEID(domain, "default", string(rune('a'+n))))
				}
			}), []string{"10.244.0.2:8080"},
		},
		"a waypoint": {
			services(both[:1], func(d *model.Destination) { d.Kind, d.Service = model.DestinationWaypoint, port }), nil,
		},
		"a waypoint for some callers": {
			services(both[:1], func(d *model.Destination) { d.Callers, d.Waypoint = []string{"shop"}, cart.Identity }), nil,
		},
		"a pod's own address": {
			services(both[:1], func(d *model.Destination) {
				d.Kind, d.Address = model.DestinationWorkload, netip.MustParseAddrPort("10.244.0.2:9090")
			}), []string{"10.244.0.2:9090"},
		},
		"an address of a pod that isn't in the mesh": {
			services(nil, func(d *model.Destination) {
				d.Kind, d.Address = model.DestinationPassthrough, netip.MustParseAddrPort("10.244.0.2:9090")
			}), nil,
		},
		"nowhere":               {services(nil, func(d *model.Destination) { d.Kind = model.DestinationRefused }), nil},
		"a port of the proxy's": {services(of(endpoint(cart, names.PortInbound))), nil},
		"guarded":               {with(alone, func(k *Known) { k.Open["default/cart"] = false }), nil},
		"not known who guards it": {
			with(alone, func(k *Known) { delete(k.Open, "default/cart") }), nil,
		},
		"not captured": {with(alone, func(k *Known) { k.Pods = k.Pods[1:] }), nil},
		"two pods of one address": {
			with(alone, func(k *Known) { k.Pods = append(k.Pods, podOf("other", "10.244.0.2")) }), nil,
		},
		"two trust domains": {
			with(alone, func(k *Known) {
				p := podOf("other", "10.244.0.9")
				p.Identity = "spiffe://elsewhere/ns/default/sa/other"
				k.Pods = append(k.Pods, p)
			}), nil,
		},
		"no load assignment yet": {with(alone, func(k *Known) { clear(k.Endpoints) }), nil},
	} {
		t.Run(name, func(t *testing.T) {
			var to []string
			for _, w := range ways(c.known(t)) {
				require.NotEmpty(t, w.by)
				for _, n := range w.To {
					require.Contains(t, n.Pod.IPs, n.At.Addr())
					to = append(to, n.At.String())
				}
			}
			require.ElementsMatch(t, c.to, to)
		})
	}
}
