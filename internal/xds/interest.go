// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

// interestKey names what a scope's proxies want as a whole.
type interestKey struct{ scope, typeURL, name string }

// interests turns subscriptions into calls of Options.OnInterest. It reports the state at the time of the call, and
// only when that differs from what it reported before, so that two streams that come and go can't be reported out of
// order.
type interests struct {
	cache *Cache
	fn    func(Interest)
	queue *notifier[interestNote]
	// reported is only touched by the queue's goroutine.
	reported map[interestKey]struct{}
}

// interestNote is what the queue carries; why is part of the key, so that a note about a lost stream and one about an
// unsubscription don't stand for each other.
type interestNote struct {
	interestKey
	disconnected bool
}

func newInterests(cache *Cache, fn func(Interest)) *interests {
	i := &interests{cache: cache, fn: fn, reported: map[interestKey]struct{}{}}
	i.queue = newNotifier(i.report)
	return i
}

// changed notes that the first subscriber came or the last one went.
func (i *interests) changed(key interestKey, disconnected bool) {
	if i.fn != nil {
		i.queue.add(interestNote{interestKey: key, disconnected: disconnected})
	}
}

func (i *interests) report(n interestNote) {
	s := i.cache.lookup(n.scope)
	wanted := s != nil && s.wanted(n.typeURL, n.name)
	if _, was := i.reported[n.interestKey]; was == wanted {
		return
	}
	if wanted {
		i.reported[n.interestKey] = struct{}{}
	} else {
		delete(i.reported, n.interestKey)
	}
	i.fn(Interest{Scope: n.scope, TypeURL: n.typeURL, Name: n.name, Wanted: wanted, Disconnected: !wanted && n.disconnected})
}
