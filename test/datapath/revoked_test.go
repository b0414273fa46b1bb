// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// soon is how long a connection may outlive the acknowledgement of the guard that refuses it.
const soon = time.Second

// endsBefore is ends, with a bound.
func (s *session) endsBefore(bound time.Time) error {
	if err := s.c.SetDeadline(bound); err != nil {
		return err
	}
	_, err := s.r.ReadByte()
	switch {
	case err == nil:
		return errors.New("there is more to read")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it is still open")
	}
	return nil
}

// TestWhatIsOpenMeetsNewGuards: once a pod's proxy goes by a guard, connections that it would refuse end, by whatever way
// they came, and all others stay: from another node and from the same, in plain text, by either IP family.
func TestWhatIsOpenMeetsNewGuards(t *testing.T) {
	m := newMesh(t)
	dual := func(n *meshNode, name string) *pod {
		p := n.newPod(name)
		p.addIPv6()
		return p
	}
	outsider, neighbour := dual(m.nodes[0], "outsider"), dual(m.nodes[1], "neighbour") // IPv6 has no way between the nodes
	alice, bob, server := dual(m.nodes[0], "alice"), dual(m.nodes[1], "bob"), dual(m.nodes[1], "server")
	for _, p := range []*pod{alice, bob, server} {
		p.join(false)
	}
	ports := []uint16{8080, 9090}
	for _, port := range ports {
		server.greet(port)
		server.workload(port)
		m.destination(model.Destination{
			Address: netip.AddrPortFrom(server.addr6, port), Kind: model.DestinationWorkload,
			Identities: []string{server.identity},
		})
	}
	callers := map[string]way{ // by name and IP family
		"alice":      {from: alice, address: netip.AddrPortFrom(server.addr, 0)},
		"bob":        {from: bob, address: netip.AddrPortFrom(server.addr, 0)},
		"bob6":       {from: bob, address: netip.AddrPortFrom(server.addr6, 0)},
		"outsider":   {from: outsider, address: netip.AddrPortFrom(server.addr, 0)},
		"neighbour":  {from: neighbour, address: netip.AddrPortFrom(server.addr, 0)},
		"neighbour6": {from: neighbour, address: netip.AddrPortFrom(server.addr6, 0)},
	}
	plain, mtls := []string{"outsider", "neighbour", "neighbour6"}, []string{"alice", "bob", "bob6"}
	at := func(port uint16, who ...string) (out []string) {
		for _, w := range who {
			out = append(out, fmt.Sprint(w, " ", port))
		}
		return out
	}
	all := slices.Concat(at(8080, mtls...), at(9090, mtls...), at(8080, plain...), at(9090, plain...))
	namespace := model.AccessRule{Sources: []model.AccessSource{
		{Identity: names.SPIFFENamespace(alice.identity), Prefix: true},
	}}
	only := guardOf()
	only.Only = []uint16{8080}
	for name, c := range map[string]struct {
		guard model.PodGuard
		stay  []string
	}{
		"an account":             {guardOf(allows("a", from(alice))), slices.Concat(at(8080, "alice"), at(9090, "alice"))},
		"an account at a port":   {guardOf(allows("a", from(bob, 9090))), at(9090, "bob", "bob6")},
		"a namespace":            {guardOf(allows("a", namespace)), slices.Concat(at(8080, mtls...), at(9090, mtls...))},
		"deny an account":        {guardOf(denies("a", from(alice))), without(all, at(8080, "alice"), at(9090, "alice"))},
		"deny an account's port": {guardOf(denies("a", from(bob, 8080))), without(all, at(8080, "bob", "bob6"))},
		"deny a port":            {guardOf(denies("a", anybody(8080))), slices.Concat(at(9090, mtls...), at(9090, plain...))},
		"a port for all": {
			guardOf(allows("a", from(alice), anybody(9090))),
			slices.Concat(at(8080, "alice"), at(9090, mtls...), at(9090, plain...)),
		},
		"default deny":              {model.PodGuard{Guard: model.Guard{DefaultDeny: true}}, nil},
		"a port of a waypoint only": {only, slices.Concat(at(9090, mtls...), at(9090, plain...))},
		"what is only tried":        {guardOf(dryRun(denies("a", anybody())), dryRun(allows("b"))), all},
		"what changes nothing":      {guardOf(denies("a", anybody(7070))), all},
	} {
		t.Run(name, func(t *testing.T) {
			server.enforced(guardOf())
			open := map[string]*session{}
			for who, w := range callers {
				for _, port := range ports {
					to := netip.AddrPortFrom(w.address.Addr(), port)
					open[fmt.Sprint(who, " ", port)] = w.from.session(to.String())
				}
			}
			server.enforced(c.guard)
			bound := time.Now().Add(soon)
			for who, s := range open {
				if !slices.Contains(c.stay, who) {
					require.NoError(t, s.endsBefore(bound), who)
				}
			}
			for who, s := range open {
				if slices.Contains(c.stay, who) {
					s.alive()
				}
			}
			server.enforced(guardOf(denies("again", anybody(7071))))
			for who, s := range open {
				if slices.Contains(c.stay, who) {
					s.alive()
				}
				require.NoError(t, s.c.Close())
			}
		})
	}
}

func without(all []string, out ...[]string) []string {
	return slices.DeleteFunc(slices.Clone(all), func(s string) bool { return slices.Contains(slices.Concat(out...), s) })
}
