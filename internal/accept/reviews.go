// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package accept

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/util/cache"
)

const (
	// knownFor is how long an address is known where a good token came from, and knownSize how many are.
	knownFor  = time.Hour
	knownSize = 8192
)

// ErrTooMany is what asks for a review beyond the bounds.
var ErrTooMany = errors.New("too many tokens to review; ask again later")

// Share of the reviews that a peer may ask for, and that all peers of a pool may.
type Share struct {
	PeerPerSecond, PeerBurst int
	PerSecond, Burst         int
	// AtOnce bounds the reviews of a pool under way.
	AtOnce int
}

// Reviews bounds what asks the API server about tokens, by peer and in all. Peers that have shown a good token lately
// have a pool of their own, so nobody else can use it up, from however many addresses.
type Reviews struct {
	perPeer            *Rates
	known              *cache.LRUExpireCache
	strangers, regular pool
}

type pool struct {
	rate  *rate.Limiter
	slots chan struct{}
}

// NewReviews makes both pools.
func NewReviews(s Share) *Reviews {
	newPool := func() pool {
		return pool{rate: rate.NewLimiter(rate.Limit(s.PerSecond), s.Burst), slots: make(chan struct{}, s.AtOnce)}
	}
	return &Reviews{
		perPeer: NewRates(s.PeerPerSecond, s.PeerBurst), known: cache.NewLRUExpireCache(knownSize),
		strangers: newPool(), regular: newPool(),
	}
}

// Enter waits for leave to ask for a review. The error is ErrTooMany, or the context's.
func (l *Reviews) Enter(ctx context.Context, peer netip.Addr) (leave func(), err error) {
	p := l.strangers
	if _, known := l.known.Get(peer); known {
		p = l.regular
	}
	if !l.perPeer.Allow(peer) || !p.rate.Allow() {
		return nil, ErrTooMany
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// Accepted notes that a good token came from a peer.
func (l *Reviews) Accepted(peer netip.Addr) { l.known.Add(peer, struct{}{}, knownFor) }
