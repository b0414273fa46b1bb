// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package auth

import (
	"context"
	"errors"
	"net/netip"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/util/cache"

	"github.com/fairway-mesh/fairway/internal/accept"
)

// Reviews cost the API server, and whoever reaches the operator may send ever new tokens. A proxy's token is reviewed once a
// minute.
const (
	// perPeerPerSec and perPeerBurst are enough for all the proxies of a node, where the network gives them its address.
	perPeerPerSec = 2
	perPeerBurst  = 128
	// poolPerSec and poolBurst are of all peers of a pool: all proxies of some hundred nodes come at once when the operator
	// starts, and those of thousands within a minute.
	poolPerSec = 60
	poolBurst  = 600
	// poolReviews bounds the reviews of a pool under way.
	poolReviews = 16
	// knownFor is how long an address is known where a good token came from, and knownSize how many are.
	knownFor  = time.Hour
	knownSize = 8192
)

// errLimited: the token isn't looked at.
var errLimited = errors.New("too many tokens to review; ask again later")

// limits bound reviews by peer and in all. Peers that have shown a good token lately have a share of their own, so nobody else
// can use it up, from however many addresses.
type limits struct {
	perPeer          *accept.Rates
	known            *cache.LRUExpireCache
	strangers, peers pool
}

type pool struct {
	rate  *rate.Limiter
	slots chan struct{}
}

func newPool() pool {
	return pool{rate: rate.NewLimiter(poolPerSec, poolBurst), slots: make(chan struct{}, poolReviews)}
}

func newLimits() *limits {
	return &limits{
		perPeer: accept.NewRates(perPeerPerSec, perPeerBurst), known: cache.NewLRUExpireCache(knownSize),
		strangers: newPool(), peers: newPool(),
	}
}

// enter waits for leave to ask for a review. The error is errLimited, or the context's.
func (l *limits) enter(ctx context.Context, peer netip.Addr) (leave func(), err error) {
	p := l.strangers
	if _, known := l.known.Get(peer); known {
		p = l.peers
	}
	if !l.perPeer.Allow(peer) || !p.rate.Allow() {
		return nil, errLimited
	}
	select {
	case p.slots <- struct{}{}:
		return func() { <-p.slots }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// accepted notes that a good token came from a peer.
func (l *limits) accepted(peer netip.Addr) { l.known.Add(peer, struct{}{}, knownFor) }
