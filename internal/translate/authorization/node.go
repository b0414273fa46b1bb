// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"slices"

	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// onlyWaypoint is the verdict about who isn't the waypoint of a port where requests are decided.
const onlyWaypoint = "only the waypoint of its Service may connect"

// ofPods are callers of pods. Those in plain text have no identity, and the port that they dialled; others ask for a
// port in the handshake. They write its number as they like (08080), so numbers are compared, of the parser that finds
// the address later.
var ofPods = caller{proved: "connection.mtls", port: "(connection.mtls ? int(" + serverName + ") : destination.port)"}

// Node is the filter that guards a pod at its node's proxy. It decides when the peer has proved who it is; about what
// comes in plain text, when it comes.
func Node(g model.PodGuard) *netstatev3.Config {
	phases := func(tried bool) (out []phase) {
		waypoints := waypointsOf(g)
		for n, l := range g.Levels() {
			rows := ofPods.rows(l, tried)
			if n == 0 && len(g.Only) > 0 {
				rows = append(phase{{[]string{ofPods.at(g.Only)}, onlyWaypoint}}, rows...)
			}
			if len(rows) > 0 {
				out = append(out, append(slices.Clone(waypoints), rows...))
			}
		}
		return out
	}
	out := verdict(names.FilterStateVerdict, phases(false))
	if g.Tries() {
		out = append(out, verdict(names.FilterStateDryRun, phases(true))...)
	}
	return &netstatev3.Config{OnDownstreamTlsHandshake: out}
}

// Unguarded tells whether a filter is that of a pod that nothing guards, and no policy is tried at.
func Unguarded(filter *netstatev3.Config) bool { return proto.Equal(filter, Node(model.PodGuard{})) }

// waypointsOf lets the waypoints in, each at its ports.
func waypointsOf(g model.PodGuard) phase {
	if len(g.Waypoints) == 0 {
		return nil
	}
	r := row{}
	for _, w := range g.Waypoints {
		r.any = append(r.any, all(ofPods.proved, ofPods.at([]uint16{w.Port}), oneOf(identity, []string{quote(w.Waypoint)})))
	}
	return phase{r}
}
