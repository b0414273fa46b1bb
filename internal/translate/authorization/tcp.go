// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"slices"
	"strconv"

	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TCP is the filter that guards the ports that a waypoint passes on as they are. It decides when the peer has proved
// who it is. Ports that aren't listed have no guard.
func TCP(guards []model.TCPGuard) *netstatev3.Config {
	phases := func(tried bool) (out []phase) {
		for _, t := range guards {
			asked := serverName + " == " + quote(names.ServerName(t.Namespace, t.Service, t.Port))
			for n, rows := range ofPort(t, tried) {
				if n == len(out) {
					out = append(out, nil)
				}
				out[n] = append(out[n], where(asked, rows)...) // one port at most is asked for
			}
		}
		return out
	}
	out := &netstatev3.Config{OnDownstreamTlsHandshake: verdict(names.FilterStateVerdict, phases(false))}
	if slices.ContainsFunc(guards, func(t model.TCPGuard) bool { return slices.ContainsFunc(t.Guards, tries) }) {
		out.OnDownstreamTlsHandshake = append(out.OnDownstreamTlsHandshake,
			verdict(names.FilterStateDryRun, phases(true))...)
	}
	return out
}

func ofPort(t model.TCPGuard, tried bool) (out []phase) {
	c := caller{port: strconv.Itoa(int(t.Port))} // its name is asked for, so that its number is known
	for _, g := range t.Guards {
		for _, l := range levels(g) {
			if rows := l.rows(c, tried); len(rows) > 0 {
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
