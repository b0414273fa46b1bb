// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package counts is how the operator learns how many callers the proxies refused, would have refused, and took in
// without an identity: what is counted (Series), how agents tell it (Envoy's metrics service), and how each replica
// adds it up (Book).
//
// Whether waypoints get the keys of tokens that they fetch is told likewise (KeysFetched and so on).
//
// A count only grows while its agent runs, and says since when it counts. What it has grown by is added up, so neither
// an agent that starts over nor one that tells twice makes a sum wrong, or smaller. All of it is bounded, and written
// off where there is no room: nothing depends on it but what people read.
package counts

import (
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// Kind of what is counted.
type Kind string

// Kinds.
const (
	// Tried callers were let in, and would have been refused if no policy were only tried.
	Tried Kind = "tried"
	// Refused callers had no identity, and the guard of a pod refused them.
	Refused Kind = "refused"
	// Plaintext connections came to a pod in plain text, and were let in.
	Plaintext Kind = "plaintext"
	// Strict ones were refused, because the pod takes none, or by its guard.
	Strict Kind = "plaintext_refused"
)

// Kinds of what a waypoint's agent made of asking for keys of tokens, in a row with the same outcome. Of a source, the
// row that began last is how it is now.
const (
	// KeysFetched: the server gave keys.
	KeysFetched Kind = "keys_fetched"
	// KeysStale: it didn't, or there is no room for them, and those from before stay good.
	KeysStale Kind = "keys_stale"
	// KeysMissing: it never did, so no token is good.
	KeysMissing Kind = "keys_missing"
)

// OfKeys tells whether a kind is of these, and not of callers.
func (k Kind) OfKeys() bool { return k == KeysFetched || k == KeysStale || k == KeysMissing }

// Series is what one count is of.
type Series struct {
	Kind Kind `json:"kind"`
	// Destination is a pod's "namespace/name" at a node, and a Service's port, as names.ServicePort has it, at a waypoint;
	// of keys it is their source, as names.KeySource has it.
	Destination string `json:"to"`
	// Verdict says who refuses, or would, as access logs have it.
	Verdict string `json:"verdict,omitempty"`
	// Source is the address of the caller, for Plaintext and Strict; Others if there are too many.
	Source string `json:"from,omitempty"`
	// Anonymous: the callers had no identity.
	Anonymous bool `json:"anonymous,omitempty"`
	// Requests are counted, and not connections.
	Requests bool `json:"requests,omitempty"`
}

// Namespace of the destination.
func (s Series) Namespace() string {
	parts := strings.SplitN(s.Destination, "/", 4)
	if len(parts) == 4 { // a Service's port
		return parts[1]
	}
	return parts[0]
}

// ByExpressions is the verdict on requests that no expression of an ALLOW policy lets in, of which Envoy names nobody.
const ByExpressions = "no ALLOW policy matches"

// Others stands for the sources that are not told apart.
const Others = "others"

// Count is how far a Series has come.
type Count struct {
	Series
	Value uint64 `json:"value"`
	// Since is when the agent began to count it, Last when it was counted last.
	Since time.Time `json:"since"`
	Last  time.Time `json:"last"`
	// Caller of the last one: its identity, or its address where it has none.
	Caller string `json:"caller,omitempty"`
	// Why there were no keys the last time.
	Why string `json:"why,omitempty"`
}

// Source is who counts: a proxy, and the scope that it has proved to be of.
type Source struct {
	Scope xds.Scope `json:"scope"`
	// Proxy is its pod's UID.
	Proxy string `json:"proxy"`
}

// Bounds of what one proxy may tell.
const (
	// MaxSeries of a proxy, over all destinations.
	MaxSeries = 4096
	// MaxKeys are the sources of keys that it may tell of besides.
	MaxKeys = 256
	// PerFreeOfProxy is Room's for the namespaces of these destinations.
	PerFreeOfProxy = 2
	// MaxSources that are told apart for each destination.
	MaxSources = 64
	// maxText bounds each text in bytes. What is longer is cut off.
	maxText = 512
	// Idle is how long a count is kept that nothing is added to. Whoever is told of it forgets it later than that, so
	// that it never comes twice.
	Idle = time.Hour
)
