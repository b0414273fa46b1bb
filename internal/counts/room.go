// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counts

// Room is shared by owners who aren't known before they come. An owner may have one more place only while some are left
// free for each that it then has: one takes a bounded part, however much it asks for, and leaves some to the next.
type Room[K comparable] struct {
	most, used int
	// perFree is how many places must stay free for each that an owner has.
	perFree int
	of      map[K]int
}

// NewRoom has so many places. One owner alone gets one of perFree+1 parts of them at most.
func NewRoom[K comparable](most, perFree int) *Room[K] {
	return &Room[K]{most: most, perFree: perFree, of: map[K]int{}}
}

// Has tells whether an owner may have one more.
func (r *Room[K]) Has(owner K) bool { return (r.of[owner]+1)*r.perFree <= r.most-r.used-1 }

// Take a place for an owner, who has room.
func (r *Room[K]) Take(owner K) {
	r.of[owner]++
	r.used++
}

// Give a place back.
func (r *Room[K]) Give(owner K) {
	r.used--
	if r.of[owner]--; r.of[owner] == 0 {
		delete(r.of, owner)
	}
}

// Used places, of all owners.
func (r *Room[K]) Used() int { return r.used }
