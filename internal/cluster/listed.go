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
	keys map[Key]uint64 // what Arrived says of each
	// sorted are those that were given out last, and are not changed any more; changed came or went since.
	sorted, changed []Key
	// parts are the same keys, divided, each as they came, so that who reads one reads the same in the same order as
	// before; nil as long as nobody asked.
	parts [][]Key
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
	case l.sorted == nil || len(l.changed)*few > len(l.keys):
		l.sorted = make([]Key, 0, len(l.keys))
		for k := range l.keys {
			l.sorted = append(l.sorted, k)
		}
		slices.SortFunc(l.sorted, compareKeys)
	default:
		l.sorted = append(make([]Key, 0, len(l.sorted)+len(l.changed)), l.sorted...)
		for _, k := range l.changed {
			at, found := slices.BinarySearchFunc(l.sorted, k, compareKeys)
			switch _, is := l.keys[k]; {
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
	l.keys[k] = arrived
	if of := len(l.parts); of > 0 {
		part := &l.parts[partOf(k, of).N]
		*part = append(*part, k)
		l.divide(of)
	}
}

func (l *listed) remove(k Key) {
	l.note(k)
	delete(l.keys, k)
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
	for len(l.keys) > mostInPart*of {
		of *= 2
	}
	for of > 1 && len(l.keys) < leastInPart*of {
		of /= 2
	}
	if len(l.parts) == of {
		return
	}
	l.parts = make([][]Key, of)
	for k := range l.keys {
		part := &l.parts[partOf(k, of).N]
		*part = append(*part, k)
	}
}
