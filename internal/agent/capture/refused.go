// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// Refused is what the kernel refused since Apply.
type Refused struct {
	// Share are the connections of the pod beyond its share of addresses.
	Share uint64
	// Peers are the connections to the pod beyond what one peer may have.
	Peers uint64
	// Outbound is what a closed pod sent to addresses outside of the mesh: connections, and packets of other protocols.
	Outbound uint64
}

// Since is what was refused after an earlier look, or since Apply, if that was later: then it counts anew.
func (r Refused) Since(before Refused) Refused {
	since := func(now, before uint64) uint64 {
		if now < before {
			return now
		}
		return now - before
	}
	return Refused{
		Share: since(r.Share, before.Share), Peers: since(r.Peers, before.Peers),
		Outbound: since(r.Outbound, before.Outbound),
	}
}

// ReadRefused reads the counters of a captured pod.
func ReadRefused(ns *netns.Namespace) (r Refused, err error) {
	c, err := connect(ns)
	if err != nil {
		return r, err
	}
	var failed []error
	read := func(chains ...string) (sum uint64) {
		for _, name := range chains {
			n, err := counters(c, name)
			failed = append(failed, err)
			sum += n
		}
		return sum
	}
	r = Refused{Share: read(chainShare), Peers: read(chainPeers), Outbound: read(chainOutbound, chainThrough)}
	if err := errors.Join(failed...); err != nil {
		return Refused{}, fmt.Errorf("in %s: %w", ns.Path(), err)
	}
	return r, nil
}

// counters are the packets that the rules of a chain have counted together.
func counters(c *nftables.Conn, name string) (n uint64, err error) {
	rules, err := c.GetRules(newRuleset().table, &nftables.Chain{Name: name})
	if err != nil && !isMissing(err) {
		return 0, fmt.Errorf("read chain %s: %w", name, err)
	}
	for _, r := range rules {
		for _, e := range r.Exprs {
			if counter, ok := e.(*expr.Counter); ok {
				n += counter.Packets
			}
		}
	}
	return n, nil
}
