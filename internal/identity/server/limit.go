// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package server

import (
	"log"
	"strings"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/util/cache"
)

const (
	// limiterSize bounds the callers whose rate is remembered.
	limiterSize = 8192
	// limiterTTL is how long a caller's rate is remembered: longer than it takes to refill its bucket.
	limiterTTL = time.Minute
)

// limiter is a token bucket per caller.
type limiter struct {
	perSecond rate.Limit
	burst     int

	mu      sync.Mutex
	buckets *cache.LRUExpireCache
}

func newLimiter(perSecond, burst int) *limiter {
	return &limiter{perSecond: rate.Limit(perSecond), burst: burst, buckets: cache.NewLRUExpireCache(limiterSize)}
}

func (l *limiter) allow(caller string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	var bucket *rate.Limiter
	if hit, ok := l.buckets.Get(caller); ok {
		bucket = hit.(*rate.Limiter)
	} else {
		bucket = rate.NewLimiter(l.perSecond, l.burst)
	}
	l.buckets.Add(caller, bucket, limiterTTL) // renews the time to live
	return bucket.Allow()
}

// quiet sends net/http's own log (mostly failed handshakes of port scanners) to the verbose log.
func quiet(l logr.Logger) *log.Logger { return log.New(lineWriter{l}, "", 0) }

type lineWriter struct{ log logr.Logger }

// Write implements io.Writer.
func (w lineWriter) Write(p []byte) (int, error) {
	w.log.V(1).Info(strings.TrimSpace(string(p)))
	return len(p), nil
}
