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
	// sorted are the keys that were given out last, and are not changed any more. Without a crowd it is the only key, as
	// under nearly all addresses, and arrived what Arrived says of it.
	sorted  []Key
	arrived uint64
	crowd   *crowd
}

// crowd is for more than one key.
type crowd struct {
	keys map[Key]uint64 // what Arrived says of each
	// changed came or went since sorted was given out.
	changed []Key
	// parts are the same keys, divided, each as they came, so that who reads one reads the same in the same order as
	// before; nil as long as nobody asked.
	parts [][]Key
}

// len is how many there are.
func (l *listed) len() int {
	if l.crowd == nil {
		return len(l.sorted)
	}
	return len(l.crowd.keys)
}

// at tells when a key arrived; false if it isn't listed.
func (l *listed) at(k Key) (uint64, bool) {
	switch {
	case l.crowd != nil:
		arrived, ok := l.crowd.keys[k]
		return arrived, ok
	case len(l.sorted) > 0 && k == l.sorted[0]:
		return l.arrived, true
	}
	return 0, false
}

// each of the keys, in no order.
func (l *listed) each(yield func(Key) bool) {
	if l.crowd == nil {
		if len(l.sorted) > 0 {
			yield(l.sorted[0])
		}
		return
	}
	for k := range l.crowd.keys {
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
	if l.crowd == nil {
		return l.sorted
	}
	changed := l.crowd.changed
	l.crowd.changed = nil
	switch {
	case len(changed) == 0 && l.sorted != nil:
	case l.sorted == nil || len(changed)*few > l.len():
		l.sorted = make([]Key, 0, l.len())
		for k := range l.each {
			l.sorted = append(l.sorted, k)
		}
		slices.SortFunc(l.sorted, compareKeys)
	default:
		l.sorted = append(make([]Key, 0, len(l.sorted)+len(changed)), l.sorted...)
		for _, k := range changed {
			at, found := slices.BinarySearchFunc(l.sorted, k, compareKeys)
			switch _, is := l.at(k); {
			case is && !found:
				l.sorted = slices.Insert(l.sorted, at, k)
			case !is && found:
				l.sorted = slices.Delete(l.sorted, at, at+1)
			}
		}
	}
	return l.sorted
}

// parts are those that the keys are divided into; nil as long as nobody asked.
func (l *listed) parts() [][]Key {
	if l.crowd == nil {
		return nil
	}
	return l.crowd.parts
}

// ensureCrowd has more room than for one key.
func (l *listed) ensureCrowd() {
	if l.crowd != nil {
		return
	}
	l.crowd = &crowd{keys: map[Key]uint64{}}
	for _, k := range l.sorted {
		l.crowd.keys[k] = l.arrived
	}
}

// divided is the number of parts.
func (l *listed) divided() int {
	if l.parts() == nil {
		l.ensureCrowd()
		l.divide(1)
	}
	return len(l.crowd.parts)
}

func (l *listed) add(k Key, arrived uint64) {
	if _, is := l.at(k); l.crowd == nil && (is || len(l.sorted) == 0) {
		l.sorted, l.arrived = []Key{k}, arrived
		return
	}
	l.ensureCrowd()
	l.note(k)
	l.crowd.keys[k] = arrived
	if of := len(l.crowd.parts); of > 0 {
		part := &l.crowd.parts[partOf(k, of).N]
		*part = append(*part, k)
		l.divide(of)
	}
}

func (l *listed) remove(k Key) {
	if l.crowd == nil {
		if _, is := l.at(k); is {
			l.sorted, l.arrived = nil, 0
		}
		return
	}
	l.note(k)
	delete(l.crowd.keys, k)
	if of := len(l.crowd.parts); of > 0 {
		part := &l.crowd.parts[partOf(k, of).N]
		*part = slices.DeleteFunc(*part, func(o Key) bool { return o == k })
		l.divide(of)
	}
}

// note that a key came or went. Before somebody has asked for all there is nothing to bring up to date.
func (l *listed) note(k Key) {
	if l.sorted != nil {
		l.crowd.changed = append(l.crowd.changed, k)
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
	if len(l.crowd.parts) == of {
		return
	}
	l.crowd.parts = make([][]Key, of)
	for k := range l.each {
		part := &l.crowd.parts[partOf(k, of).N]
		*part = append(*part, k)
	}
}
