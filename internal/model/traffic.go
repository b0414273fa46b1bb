// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import "time"

// TrafficPolicy is what the owner of a Service's port asks of waypoints. The zero value asks for nothing.
type TrafficPolicy struct {
	// Sending is about connections and requests to the port's endpoints, whatever route led to them.
	Sending
	// Requests that come to the port, whatever route takes them.
	Requests Requests
}

// Sending is how waypoints send to the endpoints of a port.
type Sending struct {
	Balancing *Balancing
	Limits    SendingLimits
	Retries   *RetryBudget
	Outliers  *Outliers
	Kept      Kept
}

// RetryBudget bounds what a proxy repeats, in place of SendingLimits.Retries.
type RetryBudget struct {
	// Percent of the requests that are under way or began within the Interval.
	Percent  uint32
	Interval time.Duration
	// Least is how many repeated requests may be under way at a time, however few others there are.
	Least uint32
}

// SendingLimits of one proxy to all endpoints of a port; nil: as many as a proxy can have.
type SendingLimits struct {
	Connections, Pending, Requests, Retries *uint32
}

// Outliers are endpoints that a proxy leaves out for what they answered.
type Outliers struct {
	Consecutive5xx, ConsecutiveGatewayErrors uint32 // 0: don't count
	// Interval and EjectionTime are Envoy's own if zero.
	Interval, EjectionTime time.Duration
	MaxPercent             uint32
}

// BalancingType is how one of several endpoints is chosen.
type BalancingType string

// Ways to choose an endpoint.
const (
	BalanceRoundRobin   BalancingType = "RoundRobin"
	BalanceLeastRequest BalancingType = "LeastRequest"
	BalanceRandom       BalancingType = "Random"
	BalanceRingHash     BalancingType = "RingHash"
	BalanceMaglev       BalancingType = "Maglev"
)

// Balancing among endpoints. BalanceRingHash and BalanceMaglev hash a cookie, a header, or else the caller's address.
type Balancing struct {
	Type           BalancingType
	Cookie, Header string
	// CookieTTL of a cookie that is set for clients without one; nil: none is. Zero: until the client ends its session.
	CookieTTL *time.Duration
}

// Kept is how connections to endpoints are made and kept; zero: as without a policy.
type Kept struct {
	ConnectTimeout, IdleTimeout, MaxDuration time.Duration
	Keepalive                                Keepalive
}

// Keepalive is TCP's, in whole seconds; zero: as without a policy.
type Keepalive struct {
	Time, Interval time.Duration
	Probes         uint32
}

// Requests is what waypoints do with all requests that come to a port. The zero value does nothing.
type Requests struct {
	LocalLimit  *LocalLimit
	GlobalLimit *GlobalLimit
	Delay       *Delay
	Abort       *Abort
	// MaxBytes of a request, which is sent on when it is there in full; zero: requests are passed on as they come.
	MaxBytes uint32
	// MaxAnswerBytes of an answer, likewise.
	MaxAnswerBytes uint32
	// Compression of answers, in order of preference.
	Compression []Compression
}

// LocalLimit is how many requests each proxy passes on.
type LocalLimit struct {
	Requests uint32
	Unit     time.Duration
}

// GlobalLimit is kept by a service that is asked about each request.
type GlobalLimit struct {
	// Service is asked, unless it is Invalid: then it is as if it never answered.
	Service ServicePort
	Invalid bool
	// TLS: it is asked in TLS; see Upstream.
	TLS    bool
	Domain string
	// Descriptors of a request, each a list of entries.
	Descriptors [][]LimitEntry
	// Reserved are headers of requests that are not for the service to set, as HeaderSpelled has them, sorted: on some way
	// that requests of the table take, policies or authorization services vouch for them, or rules go by them.
	Reserved []string
	// Closed: without an answer, requests don't pass.
	Closed  bool
	Timeout time.Duration
}

// LimitEntry has the value of a header, or a fixed one, or else the caller's identity.
type LimitEntry struct {
	Key, Header, Value string
}

// Delay holds back a share of the requests.
type Delay struct {
	For     time.Duration
	Percent uint32
}

// Abort answers a share of the requests with an error.
type Abort struct {
	Status, Percent uint32
}

// Compression is a content coding.
type Compression string

// Content codings of answers.
const (
	CompressGzip   Compression = "Gzip"
	CompressBrotli Compression = "Brotli"
	CompressZstd   Compression = "Zstd"
)
