// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// near replaces the endpoints of Service web as the agent of a proxy in zone a of node n1 does.
func (w *world) near(endpoints ...model.Endpoint) {
	w.t.Helper()
	name := names.WaypointEndpoints(web.Namespace, web.Service, web.Port)
	packed, err := upstream.Nearest(envoy.Any(upstream.WaypointEndpoints(web, endpoints)),
		upstream.Place{Node: "n1", Zone: "a"})
	require.NoError(w.t, err)
	r, err := xds.NewRawResource(name, "", packed)
	require.NoError(w.t, err)
	u := xds.Set(r)
	w.apply(u)
	w.acknowledged(u)
}

// TestNearEndpointsComeFirst: a waypoint's proxy sends to its own node, then to its zone, then elsewhere, each time at
// once, and no request fails where endpoints come, go, move on or die.
func TestNearEndpointsComeFirst(t *testing.T) {
	w := newWorld(t)
	apps := map[string]*echo{}
	at := func(name, node, zone string) model.Endpoint {
		apps[name] = &echo{Name: name}
		e, _ := w.pod(appID, apps[name])
		e.Node, e.Zone, e.ForNodes, e.ForZones = node, zone, []string{node}, []string{zone}
		return e
	}
	own, zone, far := at("own", "n1", "a"), at("zone", "n2", "a"), at("far", "n3", "b")
	w.backend(web, model.ProtocolHTTP, own, zone, far)
	c := w.caller(clientID).client(t, w.serve(web, true, nil), nil)
	// all requests go to one endpoint, but for one that another worker may send by what was before.
	all := func(name string) {
		t.Helper()
		others := 0
		for range 60 {
			r := do(t, c, http.MethodPost, "http://web/")
			require.Equal(t, http.StatusOK, r.status)
			if r.Name != name {
				others++
			}
		}
		require.LessOrEqual(t, others, 1, name)
	}
	w.near(own, zone, far)
	all("own")
	w.near(zone, far) // what isn't ready is none
	all("zone")
	w.near(far)
	all("far")
	w.near(own, zone, far)
	all("own")
	draining := own
	draining.Draining = true
	w.near(draining, zone, far)
	all("zone")

	// One that died without a word is all that there is near: requests go elsewhere, whatever their method.
	dead := own
	dead.Address = netip.AddrPortFrom(w.address(), 8080)
	w.near(dead, far)
	before := apps["far"].Requests.Load()
	for range 20 {
		require.Equal(t, http.StatusOK, do(t, c, http.MethodPost, "http://web/").status)
	}
	require.EqualValues(t, 20, apps["far"].Requests.Load()-before)
}
