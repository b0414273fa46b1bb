// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"hash/fnv"
	"io"
	"slices"
)

// listed are the keys under one value of an index. They may be very many, so a change of one must not cost a look at
// all of them.
type listed struct {
	// only is the key where there is but one, as under nearly all addresses; then there is no map, which would be most
	// of what a pod costs here.
	only    Key
	arrived uint64
	keys    map[Key]uint64 // what Arrived says of each
	// sorted are those that were given out last, and are not changed any more; changed came or went since.
	sorted, changed []Key
	// parts are the same keys, divided, each as they came, so that who reads one reads the same in the same order as
	// before; nil as long as nobody asked.
	parts [][]Key
}

// len is how many there are.
func (l *listed) len() int {
	if l.keys == nil && l.only != (Key{}) {
		return 1
	}
	return len(l.keys)
}

// at tells when a key arrived; false if it isn't listed.
func (l *listed) at(k Key) (uint64, bool) {
	switch {
	case l.keys == nil && k == l.only:
		return l.arrived, true
	case l.keys == nil:
		return 0, false
	}
	arrived, ok := l.keys[k]
	return arrived, ok
}

// each of the keys, in no order.
func (l *listed) each(yield func(Key) bool) {
	if l.keys == nil {
		if l.only != (Key{}) {
			yield(l.only)
		}
		return
	}
	for k := range l.keys {
		if !yield(k) {
			return
		}
	}
}

// Part is one of several parts of what is listed: which keys it has follows from their hash.
type Part struct{ N, Of int }

// partOf tells which of so many parts a key is in.
func partOf(k Key, of int) Part {
	h := fnv.New32a()
	_, _ = io.WriteString(h, k.Namespace+"/"+k.Name) // it never fails
	return Part{int(h.Sum32() % uint32(of)), of}     //nolint:gosec // no more than there are keys
}

// A part that has become larger than mostInPart on the average is divided; where there are fewer than leastInPart,
// there are too many parts.
const mostInPart, leastInPart = 48, 9

// all are the keys, sorted. Where few have changed since they were given out last, they are put into their places.
func (l *listed) all() []Key {
	const few = 16
	switch {
	case len(l.changed) == 0 && l.sorted != nil:
		return l.sorted
	case l.sorted == nil || len(l.changed)*few > l.len():
		l.sorted = make([]Key, 0, l.len())
		for k := range l.each {
			l.sorted = append(l.sorted, k)
		}
		slices.SortFunc(l.sorted, compareKeys)
	default:
		l.sorted = append(make([]Key, 0, len(l.sorted)+len(l.changed)), l.sorted...)
		for _, k := range l.changed {
			at, found := slices.BinarySearchFunc(l.sorted, k, compareKeys)
			switch _, is := l.at(k); {
			case is && !found:
				l.sorted = slices.Insert(l.sorted, at, k)
			case !is && found:
				l.sorted = slices.Delete(l.sorted, at, at+1)
			}
		}
	}
	l.changed = nil
	return l.sorted
}

// divided is the number of parts.
func (l *listed) divided() int {
	if l.parts == nil {
		l.divide(1)
	}
	return len(l.parts)
}

func (l *listed) add(k Key, arrived uint64) {
	l.note(k)
	switch {
	case l.keys == nil && (l.only == Key{} || l.only == k):
		l.only, l.arrived = k, arrived
	case l.keys == nil:
		l.keys = map[Key]uint64{l.only: l.arrived, k: arrived}
		l.only, l.arrived = Key{}, 0
	default:
		l.keys[k] = arrived
	}
	if of := len(l.parts); of > 0 {
		part := &l.parts[partOf(k, of).N]
		*part = append(*part, k)
		l.divide(of)
	}
}

func (l *listed) remove(k Key) {
	l.note(k)
	if delete(l.keys, k); l.only == k {
		l.only, l.arrived = Key{}, 0
	}
	if of := len(l.parts); of > 0 {
		part := &l.parts[partOf(k, of).N]
		*part = slices.DeleteFunc(*part, func(o Key) bool { return o == k })
		l.divide(of)
	}
}

// note that a key came or went. Before somebody has asked for all there is nothing to bring up to date.
func (l *listed) note(k Key) {
	if l.sorted != nil {
		l.changed = append(l.changed, k)
	}
}

// divide into so many parts, or as many more or fewer as there should be. They are a power of two.
func (l *listed) divide(of int) {
	for l.len() > mostInPart*of {
		of *= 2
	}
	for of > 1 && l.len() < leastInPart*of {
		of /= 2
	}
	if len(l.parts) == of {
		return
	}
	l.parts = make([][]Key, of)
	for k := range l.each {
		part := &l.parts[partOf(k, of).N]
		*part = append(*part, k)
	}
}
