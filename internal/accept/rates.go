// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package accept

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/util/cache"
)

const (
	// ratesSize bounds the keys whose rate is remembered.
	ratesSize = 8192
	// ratesTTL is how long a rate is remembered, and longer than it takes to refill a bucket.
	ratesTTL = 2 * time.Minute
)

// Rates is a token bucket for each key, such as a caller's name or address. It is safe for concurrent use.
type Rates struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	buckets *cache.LRUExpireCache
}

// NewRates makes buckets that are full at first.
func NewRates(perSecond, burst int) *Rates {
	return &Rates{perSecond: rate.Limit(perSecond), burst: burst, buckets: cache.NewLRUExpireCache(ratesSize)}
}

// Allow takes one from the bucket of a key, unless it is empty.
func (l *Rates) Allow(key any) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var bucket *rate.Limiter
	if hit, ok := l.buckets.Get(key); ok {
		bucket = hit.(*rate.Limiter)
	} else {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
	}
	l.buckets.Add(key, bucket, ratesTTL) // renews the time to live
	return bucket.Allow()
}
