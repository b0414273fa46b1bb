// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

// interests turns subscriptions into calls of Options.OnInterest. It reports the state at the time of the call, and
// only when that differs from what it reported before, so that two streams that come and go can't be reported out of
// order.
type interests struct {
	cache *Cache
	fn    func(Interest)
	queue *notifier[interestNote]
	// reported is only touched by the queue's goroutine.
	reported map[Key]struct{}
}

// interestNote is what the queue carries; why is part of the key, so that a note about a lost stream and one about an
// unsubscription don't stand for each other.
type interestNote struct {
	Key
	disconnected bool
}

func newInterests(cache *Cache, fn func(Interest)) *interests {
	i := &interests{cache: cache, fn: fn, reported: map[Key]struct{}{}}
	i.queue = newNotifier(func(notes ...interestNote) {
		for _, n := range notes {
			i.report(n)
		}
	})
	return i
}

// noteChanged notes that the first subscriber came or the last one went.
func (i *interests) noteChanged(key Key, disconnected bool) {
	if i.fn != nil {
		i.queue.add(interestNote{Key: key, disconnected: disconnected})
	}
}

func (i *interests) report(n interestNote) {
	s := i.cache.lookup(n.Scope)
	wanted := s != nil && s.wanted(n.ID)
	if _, was := i.reported[n.Key]; was == wanted {
		return
	}
	if wanted {
		i.reported[n.Key] = struct{}{}
	} else {
		delete(i.reported, n.Key)
	}
	i.fn(Interest{Key: n.Key, Wanted: wanted, Disconnected: !wanted && n.disconnected})
}
