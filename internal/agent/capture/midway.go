// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// addMidway refuses opening packets that should have been redirected and weren't. The kernel redirects a connection or
// never does, by the first packet that it sees of it, and takes one from the middle for such a first packet. So anybody
// could send that ahead, in a form that the pod gives no answer to, and then come in past the proxy from the same port;
// or, in the name of a server, have what a pod opens to it leave in plaintext. It runs after addresses are translated.
func (r *ruleset) addMidway(proxy proxymark.Mark, ranges, probes []*nftables.Set) {
	in := append(notOpening(fromLoopback()),
		rule(tcpPort(names.PortInbound), returns()), // redirected: nobody else gets past chain in
		rule(tcpPort(names.PortMTLS), returns()),
	)
	out := notOpening(toLoopback())
	for i, f := range families {
		in = append(in, rule(f.from(f.probe), f.toPortSet(probes[i]), returns()))
		out = append(out, rule(f.toSet(ranges[i]), reset()))
	}
	in = append(in, rule(reset()))
	r.addChain("midway-in", nftables.ChainTypeFilter, nftables.ChainHookInput, *nftables.ChainPriorityFilter, in...)
	r.addLastOut(proxy, out...)
}

// notOpening lets all pass but the opening packets of connections that leave the pod, or come from without.
func notOpening(within []expr.Any) [][]expr.Any {
	return append([][]expr.Any{rule(within, returns())}, opening()...)
}

// opening lets all pass but opening packets.
func opening() [][]expr.Any {
	return [][]expr.Any{rule(notTCP(), returns()), rule(notSyn(), returns())}
}
