// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package memo

import "slices"

// readers are nodes, each with a place. Most nodes have one or two, and a few thousands.
type readers struct {
	first reader // none where its node is nil
	rest  *others
}

type reader struct {
	node  *node
	place int
}

// others are those of the readers of a node that aren't the first.
type others struct {
	few  []reader
	many map[*node]int // instead, from mostOfFew on
}

const mostOfFew = 8

func (r *readers) len() (n int) {
	if r.first.node != nil {
		n++
	}
	if r.rest != nil {
		n += len(r.rest.few) + len(r.rest.many)
	}
	return n
}

func (r *readers) all(yield func(*node) bool) {
	if n := r.first.node; n != nil && !yield(n) || r.rest == nil {
		return
	}
	for _, u := range r.rest.few {
		if !yield(u.node) {
			return
		}
	}
	for u := range r.rest.many {
		if !yield(u) {
			return
		}
	}
}

func (r *readers) place(n *node) (place int, ok bool) {
	switch {
	case r.first.node == n:
		return r.first.place, true
	case r.rest == nil:
		return 0, false
	}
	return r.rest.place(n)
}

func (r *readers) set(n *node, place int) {
	if r.first.node != n && r.rest != nil {
		if _, ok := r.rest.place(n); ok {
			r.rest.set(n, place)
			return
		}
	}
	switch {
	case r.first.node == nil || r.first.node == n:
		r.first = reader{n, place}
	case r.rest == nil:
		r.rest = &others{few: []reader{{n, place}}}
	default:
		r.rest.set(n, place)
	}
}

func (r *readers) remove(n *node) {
	if r.first.node == n {
		r.first = reader{}
	} else if r.rest != nil && r.rest.remove(n) {
		r.rest = nil
	}
}

func (o *others) find(n *node) int {
	return slices.IndexFunc(o.few, func(u reader) bool { return u.node == n })
}

func (o *others) place(n *node) (place int, ok bool) {
	if o.many != nil {
		place, ok = o.many[n]
		return place, ok
	}
	if i := o.find(n); i >= 0 {
		return o.few[i].place, true
	}
	return 0, false
}

func (o *others) set(n *node, place int) {
	if o.many != nil {
		o.many[n] = place
		return
	}
	if i := o.find(n); i >= 0 {
		o.few[i].place = place
		return
	}
	if o.few = append(o.few, reader{n, place}); len(o.few) >= mostOfFew {
		o.many = make(map[*node]int, len(o.few))
		for _, u := range o.few {
			o.many[u.node] = u.place
		}
		o.few = nil
	}
}

// remove tells whether there are none left.
func (o *others) remove(n *node) (none bool) {
	if o.many != nil {
		delete(o.many, n)
		return len(o.many) == 0
	}
	if i := o.find(n); i >= 0 {
		last := len(o.few) - 1
		o.few[i], o.few[last] = o.few[last], reader{}
		o.few = o.few[:last]
	}
	return len(o.few) == 0
}
