// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"context"
	"time"
)

// Proxy is the authenticated peer of a stream. Nothing in it comes from what the client claims about itself.
type Proxy struct {
	// Scope selects the resources that the proxy sees.
	Scope Scope
	// Pod is "<namespace>/<name>" of the proxy's pod.
	Pod string
	// PodUID tells successive pods of one name apart.
	PodUID string
	// Node is the name of the node that the pod runs on.
	Node string
	// Address is the peer's network address.
	Address string
}

// ID tells proxies apart, whichever replica they are connected to.
func (p Proxy) ID() string { return cmp.Or(p.PodUID, p.Pod) }

// Authenticator tells who opened a stream. An error that carries no gRPC status is answered as codes.Unauthenticated;
// its text reaches the client, so it must say what to do and hold no secret.
type Authenticator interface {
	Authenticate(ctx context.Context) (Proxy, error)
}

// AuthenticatorFunc adapts a function to Authenticator.
type AuthenticatorFunc func(ctx context.Context) (Proxy, error)

// Authenticate calls f.
func (f AuthenticatorFunc) Authenticate(ctx context.Context) (Proxy, error) { return f(ctx) }

// Interest says that a name got its first subscriber in a scope (Wanted), or lost its last one.
type Interest struct {
	// Key's name is that of a resource, or Wildcard.
	Key
	Wanted bool
	// Disconnected is set with Wanted false when the last subscriber's stream ended: nobody unsubscribed, and the proxy
	// is likely to come back.
	Disconnected bool
}

// Ack is one proxy's ACK or NACK of one version of one resource. An empty Version is a removal.
type Ack struct {
	Proxy Proxy
	ID
	Version string
	// Error is the proxy's own text; empty for an acknowledgement.
	Error string
}

// AckState is where a proxy stands with the current version of a resource.
type AckState string

// The three states: not answered yet, accepted, and refused (the proxy then keeps its last good version).
const (
	Pending  AckState = "Pending"
	Acked    AckState = "Acked"
	Rejected AckState = "Rejected"
)

// ProxyAck is one subscriber's line in a ResourceState.
type ProxyAck struct {
	Proxy Proxy
	State AckState
	// Version is the version that the proxy accepted last, empty if none.
	Version string
	// Moving: another version than the current one was sent to the proxy, or is about to be, and is not answered yet, or
	// was in a response that was rejected. It may run that by now.
	Moving bool
	// Error is the proxy's text for State Rejected.
	Error string
}

// ResourceState joins the current version of a resource with what its connected subscribers made of it.
type ResourceState struct {
	// Version is the current one; empty if the resource does not exist or is unknown.
	Version string
	// Proxies are ordered by pod.
	Proxies []ProxyAck
}

// Settled tells whether no subscriber is pending.
func (s ResourceState) Settled() bool {
	for _, p := range s.Proxies {
		if p.State == Pending {
			return false
		}
	}
	return true
}

// Rejection is the text of the first subscriber that refuses the current version, or empty.
func (s ResourceState) Rejection() string {
	for _, p := range s.Proxies {
		if p.State == Rejected {
			return p.Error
		}
	}
	return ""
}

// ProxyState is a connected stream for introspection.
type ProxyState struct {
	Proxy     Proxy
	Connected time.Time
	// Types is keyed by type URL.
	Types map[string]TypeState
}

// TypeState is one type of one stream.
type TypeState struct {
	Wildcard bool
	// Names are the names subscribed to one by one, sorted.
	Names []string
	// Resources are sorted by name.
	Resources []ResourceStatus
	// InFlight tells that a response awaits its ACK or NACK.
	InFlight bool
}

// ResourceStatus is one resource as one proxy has it.
type ResourceStatus struct {
	Name string
	// Sent is the last version sent, Acked the last one accepted.
	Sent  string
	Acked string
	// Rejected is the last version refused, and Error the proxy's text.
	Rejected string
	Error    string
}
