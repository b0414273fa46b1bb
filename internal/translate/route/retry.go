// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	previousv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/host/previous_hosts/v3"
	prioritiesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/retry/priority/previous_priorities/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// What a try may fail with so that another is made.
const (
	// retrySafe is where the request can't have reached the application, whatever its method.
	retrySafe = "connect-failure,refused-stream,reset-before-request"
	// retryAsked is where a route asks for retries: a backend that breaks off or lets a try time out counts, too.
	retryAsked = retrySafe + "," + retryBrokenOff
	// retryBrokenOff is an endpoint that gave no answer; see repeatable for where it applies unasked.
	retryBrokenOff = "reset"
	retryCodes     = "retriable-status-codes"
)

const (
	// safeRetries is the number of further tries without a route's own policy.
	safeRetries = 2
	// nearTries is how many tries are made among the nearest endpoints before others get one. A single one that vanished
	// without a trace is still there for a while, and it is all that there is near.
	nearTries = 2
	// hostAttempts to pick an endpoint that was not tried yet.
	hostAttempts = 10
)

// requestTimeout is how long a request may take; zero: forever. Envoy's own default of 15 s never applies. Without
// retries the one try must keep both timeouts, to the last byte of the answer.
func requestTimeout(r model.Rule) *durationpb.Duration {
	total := positive(r.RequestTimeout)
	if try := positive(r.BackendTimeout); r.Retry == nil && try > 0 && (total == 0 || try < total) {
		total = try
	}
	return envoy.Duration(total)
}

// positive is a timeout; zero where none is set or it is disabled.
func positive(d *time.Duration) time.Duration {
	if d == nil {
		return 0
	}
	return min(max(*d, 0), maxDuration)
}

// retryPolicy is what a rule asks for; nil leaves the virtual host's default.
func retryPolicy(r model.Rule) *routev3.RetryPolicy {
	if r.Retry == nil {
		return nil
	}
	p := defaultRetry()
	p.NumRetries = envoy.UInt32(uint32(max(min(r.Retry.Attempts, model.MaxRetries), 1)))
	on := []string{retryAsked}
	if len(r.Retry.Codes) > 0 {
		on = append(on, retryCodes)
		p.RetriableStatusCodes = slices.Clone(r.Retry.Codes)
	}
	p.RetryOn = strings.Join(on, ",")
	if try := positive(r.BackendTimeout); try > 0 {
		p.PerTryTimeout = envoy.Duration(try)
	}
	if r.Retry.Backoff > 0 {
		p.RetryBackOff = backOff(r.Retry.Backoff)
	}
	return p
}

// maxDuration is far below what Envoy takes for out of range.
const maxDuration = 100 * 365 * 24 * time.Hour

// backOff waits at random below a bound that starts here and doubles up to ten times that. Envoy counts whole
// milliseconds.
func backOff(d time.Duration) *routev3.RetryPolicy_RetryBackOff {
	d = min(max(d, time.Millisecond), maxDuration/10)
	return &routev3.RetryPolicy_RetryBackOff{BaseInterval: envoy.Duration(d), MaxInterval: envoy.Duration(10 * d)}
}

// defaultRetry makes good what no application can see: an endpoint that went away, a connection that was closed before
// the request was on it. Another endpoint is preferred, and in the end one that isn't near.
func defaultRetry() *routev3.RetryPolicy {
	return &routev3.RetryPolicy{
		RetryOn:    retrySafe,
		NumRetries: envoy.UInt32(safeRetries),
		RetryHostPredicate: []*routev3.RetryPolicy_RetryHostPredicate{{
			Name: "envoy.retry_host_predicates.previous_hosts",
			ConfigType: &routev3.RetryPolicy_RetryHostPredicate_TypedConfig{
				TypedConfig: envoy.Any(&previousv3.PreviousHostsPredicate{}),
			},
		}},
		HostSelectionRetryMaxAttempts: hostAttempts,
		RetryPriority: &routev3.RetryPolicy_RetryPriority{
			Name: "envoy.retry_priorities.previous_priorities",
			ConfigType: &routev3.RetryPolicy_RetryPriority_TypedConfig{
				TypedConfig: envoy.Any(&prioritiesv3.PreviousPrioritiesConfig{UpdateFrequency: nearTries}),
			},
		},
	}
}
