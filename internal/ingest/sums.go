// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"maps"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What the routes of a namespace cost in all is asked whenever what one of them costs changes, and nearly always it is
// little. So it is added up in parts, of which a change concerns one; the routes themselves are gone through only where
// they cost too much.

// sum of bills: of what is for the Services of each namespace, and all of it.
type sum struct {
	all       cost
	of, tried map[string]cost
}

func (s *sum) add(all cost, of, tried map[string]cost) {
	s.all = s.all.plus(all)
	for owner, c := range of {
		s.of[owner] = s.of[owner].plus(c)
	}
	for owner, c := range tried {
		s.tried[owner] = s.tried[owner].plus(c)
	}
}

func newSum() *sum { return &sum{of: map[string]cost{}, tried: map[string]cost{}} }

func sameSum(a, b *sum) bool {
	return a.all == b.all && maps.Equal(a.of, b.of) && maps.Equal(a.tried, b.tried)
}

// listing is what an index lists under a value, to add up one kind of its bills.
type listing struct {
	bills        billKind
	index, value string
}

type billKind uint8

const (
	routeBills billKind = iota
	guardBills
)

// portion is one part of a listing, of the routes of a kind.
type portion struct {
	listing
	kind string
	part cluster.Part
}

func (i *Ingest) sumOf(c *memo.Ctx, k listing) *sum {
	out := newSum()
	add := func(kind string, parts int) {
		for n := range parts {
			s := i.sums.Get(c, portion{k, kind, cluster.Part{N: n, Of: parts}})
			out.add(s.all, s.of, s.tried)
		}
	}
	add(KindHTTPRoute, i.store.HTTPRoutes.Parts(c, k.index, k.value))
	add(kindGRPCRoute, i.store.GRPCRoutes.Parts(c, k.index, k.value))
	return out
}

func (i *Ingest) sumOfPortion(c *memo.Ctx, k portion) *sum {
	part, bills := i.store.HTTPRoutes.Part, i.billOf
	if k.kind == kindGRPCRoute {
		part = i.store.GRPCRoutes.Part
	}
	if k.bills == guardBills {
		bills = i.guardBillOf
	}
	out := newSum()
	for _, key := range part(c, k.index, k.value, k.part) {
		if b := bills.Get(c, model.ObjectRef{Kind: k.kind, Namespace: key.Namespace, Name: key.Name}); b != nil {
			out.add(b.all, b.of, b.tried)
		}
	}
	return out
}
