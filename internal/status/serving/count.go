// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"cmp"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// need is what some proxies must have acknowledged before a status may say that something is in force: those of a
// waypoint, or of all nodes.
type need struct {
	// serving is what each of these proxies has that serves, and by which it comes and goes: all of them count, and each
	// needs every resource of which the replicas tell each other who has it. Without, as on nodes, proxies have what their
	// pods dial, and those that have a resource must follow it.
	serving   xds.Key
	resources []xds.Key
	// besides are resources of which it matters only that no proxy rejects them.
	besides []xds.Key
}

// resourcesOf lists all resources that a status depends on.
func resourcesOf(needs []need) []xds.Key {
	var out []xds.Key
	for _, n := range needs {
		if n.serving != (xds.Key{}) {
			out = append(out, n.serving)
		}
		out = append(append(out, n.resources...), n.besides...)
	}
	return out
}

// count is how far proxies are, those of all replicas.
type count struct {
	// serving is how many serve, and acked how many of them have what they need.
	serving, acked int
	// behind is a proxy that does not follow yet, of those that aren't counted.
	behind string
	// rejection is a sentence on a proxy that rejects something.
	rejection string
}

func countOf(acks Acknowledgements, needs []need) (all count) {
	for _, need := range needs {
		n := need.count(acks)
		all.serving, all.acked = all.serving+n.serving, all.acked+n.acked
		all.behind, all.rejection = cmp.Or(all.behind, n.behind), cmp.Or(all.rejection, n.rejection)
	}
	return all
}

func (n need) count(acks Acknowledgements) (out count) {
	var ready map[string]bool
	if n.serving != (xds.Key{}) {
		ready = catalogue.Ready(acks.State(n.serving))
		out.look(acks, n.serving, ready) // a proxy serves with any version of what it counts by
	}
	out.serving, out.acked = len(ready), len(ready)
	for _, r := range n.resources {
		// Of other resources only rejections are told between replicas; who has those has what leads to them.
		if acked := out.look(acks, r, ready); catalogue.PartOf(r) == catalogue.Everyone {
			out.acked = min(out.acked, acked)
		}
	}
	for _, r := range n.besides {
		out.look(acks, r, ready)
	}
	return out
}

// look notes who rejects a resource or does not follow yet, and counts who of the ready ones has it.
func (c *count) look(acks Acknowledgements, r xds.Key, ready map[string]bool) (acked int) {
	for _, a := range acks.State(r).Proxies {
		switch {
		case a.State == xds.Rejected && c.rejection == "":
			c.rejection = rejection(a, r.ID)
		case a.State != xds.Acked && catalogue.PartOf(r) == catalogue.Switched:
			c.behind = cmp.Or(c.behind, a.Proxy.Pod)
		case a.State == xds.Acked && ready[a.Proxy.ID()]:
			acked++
		}
	}
	return acked
}
