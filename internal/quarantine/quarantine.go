// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package quarantine finds out which items of a list make a judge reject the whole: it says what the judge is to be
// shown next, and is told the verdict. It is a pure state machine, knows neither proxies nor routes, and starts
// nothing.
//
// Halving finds one culprit among n items in about 2·log2(n) trials. What was found to be good stays so, whatever comes
// and goes meanwhile, so nobody who changes items without end keeps the search from its end.
package quarantine

import "slices"

// maxPerGroup bounds what one group can cost: when so many culprits of it are found, the rest that is not known to be
// good goes with them.
const maxPerGroup = 4

// Item is one thing that may be to blame. Equal keys are equal items.
type Item struct {
	Key string
	// Group is whose it is.
	Group string
}

// Search is one search. Make it with New.
type Search struct {
	// good are the keys that the judge accepts together; proven: it was shown them.
	good   map[string]bool
	proven bool
	// groups are to be tried yet, the last one first.
	groups [][]Item
	known  map[string]bool // in good, in groups, or found
	found  map[string]int  // culprits by group
	lost   bool
}

// New starts a search in which some keys are believed to be good: the judge accepted them once.
func New(trusted map[string]bool) *Search {
	s := &Search{good: map[string]bool{}, known: map[string]bool{}, found: map[string]int{}}
	for key := range trusted {
		s.good[key], s.known[key] = true, true
	}
	return s
}

// Advance takes in the items that there are now and says which of them the judge is to be shown. ok is false where the
// search is at its end: each item is known to be good or a culprit, or there is none to blame, because nothing at all
// is rejected as well.
func (s *Search) Advance(items []Item) (keys map[string]bool, ok bool) {
	var fresh []Item
	present := map[string]bool{}
	for _, it := range items {
		present[it.Key] = true
		if !s.known[it.Key] {
			s.known[it.Key] = true
			fresh = append(fresh, it)
		}
	}
	if len(fresh) > 0 {
		s.groups = append([][]Item{fresh}, s.groups...)
	}
	for len(s.groups) > 0 {
		last := len(s.groups) - 1
		s.groups[last] = slices.DeleteFunc(s.groups[last], func(it Item) bool { return !present[it.Key] })
		if len(s.groups[last]) > 0 {
			break
		}
		s.groups = s.groups[:last]
	}
	if s.lost || s.proven && len(s.groups) == 0 {
		return nil, false
	}
	keys = map[string]bool{}
	for key := range s.good {
		if present[key] {
			keys[key] = true
		}
	}
	if s.proven {
		for _, it := range s.groups[len(s.groups)-1] {
			keys[it.Key] = true
		}
	}
	return keys, true
}

// Verdict tells what the judge said to what Advance returned last, of these items, and returns the culprits that are
// known by it.
func (s *Search) Verdict(items []Item, accepted bool) (culprits []Item) {
	if !s.proven {
		s.base(items, accepted)
		return nil
	}
	last := len(s.groups) - 1
	tried := s.groups[last]
	s.groups = s.groups[:last]
	switch {
	case accepted:
		for _, it := range tried {
			s.good[it.Key] = true
		}
		return nil
	case len(tried) > 1:
		half := len(tried) / 2
		s.groups = append(s.groups, slices.Clone(tried[half:]), slices.Clone(tried[:half]))
		return nil
	}
	culprit := tried[0]
	if s.found[culprit.Group]++; s.found[culprit.Group] >= maxPerGroup {
		for n, group := range s.groups {
			tried = append(tried, slices.DeleteFunc(slices.Clone(group), func(it Item) bool {
				return it.Group != culprit.Group
			})...)
			s.groups[n] = slices.DeleteFunc(group, func(it Item) bool { return it.Group == culprit.Group })
		}
	}
	return tried
}

// Good tells whether the judge accepts an item, as far as is known.
func (s *Search) Good(key string) bool { return s.good[key] }

// base takes in what the judge says to the good ones alone. If they are not, all are to be tried.
func (s *Search) base(items []Item, accepted bool) {
	switch {
	case accepted:
		s.proven = true
	case len(s.good) == 0:
		s.lost = true
	default:
		trusted := slices.DeleteFunc(slices.Clone(items), func(it Item) bool { return !s.good[it.Key] })
		s.good = map[string]bool{}
		s.groups = append(s.groups, trusted)
	}
}
