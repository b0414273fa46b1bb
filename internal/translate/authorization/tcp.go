// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"fmt"
	"slices"
	"strconv"

	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// notServed is the verdict about ports that aren't listed.
const notServed = "the waypoint does not pass it on"

// TCP is the filter that guards the ports that a waypoint passes on as they are. It decides when the peer has proved
// who it is. All ports are listed, those without guards, too: one that is served no longer is closed, though the
// listener may have it still.
func TCP(guards []model.TCPGuard) *netstatev3.Config {
	phases := func(tried bool) []phase {
		out := []phase{{{any: []string{"true"}, verdict: notServed}}}
		if len(guards) > 0 {
			out[0] = append(phase{{any: asksFor(guards)}}, out[0]...)
		}
		for _, alike := range byGuards(guards) {
			for n, rows := range ofPort(alike[0], tried) {
				if n+1 == len(out) {
					out = append(out, nil)
				}
				for _, asked := range asksFor(alike) {
					out[n+1] = append(out[n+1], where(asked, rows)...) // one port at most is asked for
				}
			}
		}
		return out
	}
	out := &netstatev3.Config{OnDownstreamTlsHandshake: verdict(names.FilterStateVerdict, phases(false))}
	tries := func(t model.TCPGuard) bool { return slices.ContainsFunc(t.Guards, model.Guard.Tries) }
	if slices.ContainsFunc(guards, tries) {
		out.OnDownstreamTlsHandshake = append(out.OnDownstreamTlsHandshake,
			verdict(names.FilterStateDryRun, phases(true))...)
	}
	return out
}

// byGuards are the ports by what guards them, for many of a waypoint's are alike.
func byGuards(all []model.TCPGuard) (out [][]model.TCPGuard) {
	at := map[string]int{}
	for _, t := range all {
		key := fmt.Sprintf("%#v", t.Guards)
		if namesPorts(t.Guards) {
			key += " at " + strconv.Itoa(int(t.Port))
		}
		n, found := at[key]
		if !found {
			n = len(out)
			at[key], out = n, append(out, nil)
		}
		out[n] = append(out[n], t)
	}
	return out
}

func namesPorts(guards []model.Guard) bool {
	return slices.ContainsFunc(guards, func(g model.Guard) bool {
		return slices.ContainsFunc(slices.Concat(g.Network, g.Application), func(p model.AccessPolicy) bool {
			return p.Ports != nil || slices.ContainsFunc(p.Rules, func(r model.AccessRule) bool { return r.Ports != nil })
		})
	})
}

// asksFor are the conditions any of which holds if the peer asks for one of the ports.
func asksFor(ports []model.TCPGuard) (out []string) {
	const atOnce = mostBytes / 4 / 256 // no name is longer
	for some := range slices.Chunk(ports, atOnce) {
		var asked []string
		for _, t := range some {
			asked = append(asked, quote(names.ServerName(t.Namespace, t.Service, t.Port)))
		}
		out = append(out, oneOf(serverName, asked))
	}
	return out
}

func ofPort(t model.TCPGuard, tried bool) (out []phase) {
	c := caller{port: strconv.Itoa(int(t.Port))} // its name is asked for, so that its number is known
	for _, g := range t.Guards {
		for _, l := range g.Levels() {
			if rows := c.rows(l, tried); len(rows) > 0 {
				out = append(out, rows)
			}
		}
	}
	return out
}

// where narrows rows down to where a condition holds.
func where(condition string, rows phase) (out phase) {
	for _, r := range rows {
		narrow := row{verdict: r.verdict}
		for _, c := range r.any {
			narrow.any = append(narrow.any, all(condition, c))
		}
		out = append(out, narrow)
	}
	return out
}
