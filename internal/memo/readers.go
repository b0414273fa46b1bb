// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

import "slices"

// readers are nodes, each with a place. Most nodes have one or two, and a few thousands.
type readers struct {
	few  []reader
	many map[*node]int // instead, from mostOfFew on
}

type reader struct {
	node  *node
	place int
}

const mostOfFew = 8

func (r *readers) len() int { return len(r.few) + len(r.many) }

func (r *readers) all(yield func(*node) bool) {
	for _, u := range r.few {
		if !yield(u.node) {
			return
		}
	}
	for u := range r.many {
		if !yield(u) {
			return
		}
	}
}

func (r *readers) find(n *node) int {
	return slices.IndexFunc(r.few, func(u reader) bool { return u.node == n })
}

func (r *readers) place(n *node) (place int, ok bool) {
	if r.many != nil {
		place, ok = r.many[n]
		return place, ok
	}
	if i := r.find(n); i >= 0 {
		return r.few[i].place, true
	}
	return 0, false
}

func (r *readers) set(n *node, place int) {
	if r.many != nil {
		r.many[n] = place
		return
	}
	if i := r.find(n); i >= 0 {
		r.few[i].place = place
		return
	}
	if r.few = append(r.few, reader{n, place}); len(r.few) > mostOfFew {
		r.many = make(map[*node]int, len(r.few))
		for _, u := range r.few {
			r.many[u.node] = u.place
		}
		r.few = nil
	}
}

func (r *readers) remove(n *node) {
	if r.many != nil {
		if delete(r.many, n); len(r.many) == 0 {
			r.many = nil
		}
		return
	}
	if i := r.find(n); i >= 0 {
		last := len(r.few) - 1
		r.few[i], r.few[last] = r.few[last], reader{}
		r.few = r.few[:last]
	}
}
