// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// role is what a waypoint has to do with a port. The zero role: nothing.
type role struct {
	// backend: it sends requests there. tcp: it passes connections on as they are.
	backend, tcp bool
	word         Word
	identity     string // the waypoint's
}

// roleIn a waypoint of a port; the waypoint is nil where there is none.
func roleIn(w *model.Waypoint, port model.ServicePort) role {
	if w == nil {
		return role{}
	}
	var out role
	if _, out.backend = slices.BinarySearchFunc(w.Backends, port, model.ServicePort.Compare); !out.backend {
		p, served := w.Port(port)
		out.tcp = served && !p.Protocol.HTTP()
	}
	if !out.backend && !out.tcp {
		return role{}
	}
	out.word, out.identity = WordFor(w, port), w.Identity
	return out
}

// moved are the ports whose role differs between two versions of a waypoint.
func moved(before, now *model.Waypoint) (out []model.ServicePort) {
	if before == nil || now == nil || before.Identity != now.Identity {
		for _, w := range []*model.Waypoint{before, now} {
			if w != nil {
				out = append(out, w.Backends...)
				for _, p := range w.Ports {
					out = append(out, p.ServicePort)
				}
			}
		}
		return out
	}
	out = differing(before.Backends, now.Backends, model.ServicePort.Compare)
	out = append(out, differing(before.Consumed, now.Consumed, model.ServicePort.Compare)...)
	for _, p := range differing(before.Ports, now.Ports, func(a, b model.ServedPort) int {
		return a.Compare(b.ServicePort)
	}) {
		out = append(out, p.ServicePort)
	}
	return out
}

// differing are what only one of two sorted lists has, and what is another value in each.
func differing[T comparable](a, b []T, compare func(a, b T) int) (out []T) {
	for len(a) > 0 && len(b) > 0 {
		if a[0] == b[0] {
			a, b = a[1:], b[1:]
			continue
		}
		switch c := compare(a[0], b[0]); {
		case c < 0:
			out, a = append(out, a[0]), a[1:]
		case c > 0:
			out, b = append(out, b[0]), b[1:]
		default:
			out, a, b = append(out, a[0]), a[1:], b[1:]
		}
	}
	return append(append(out, a...), b...)
}

// roleOf a port in a waypoint, read.
func (i *Ingest) roleOf(c *memo.Ctx, gateway cluster.Key, port model.ServicePort) role {
	return i.roles.Get(c, memo.Picked[cluster.Key, model.ServicePort]{From: gateway, Part: port})
}
