// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import "strings"

// Scope names the proxies that see the same resources: "<kind>/<whose>". What there is behind the first slash is the
// authenticator's to say; the server only compares scopes.
type Scope string

// anyone is the last part of a scope that stands for all scopes of a kind of proxy.
const anyone = "/*"

// AllOf is the scope that stands for all scopes of a kind of proxy in Server.State: it joins what all of them made of a
// cluster of one name and of content that is the same for all.
func AllOf(kind string) Scope { return Scope(kind + anyone) }

// kind is the part before the first slash ("node", "waypoint"): a low-cardinality label.
func (s Scope) kind() string {
	kind, _, _ := strings.Cut(string(s), "/")
	return kind
}

// ofAll tells whether the scope is AllOf a kind.
func (s Scope) ofAll() bool { return strings.HasSuffix(string(s), anyone) }

// ID names a resource among those of a scope: by its type, and its name among those of the type.
type ID struct{ TypeURL, Name string }

// Key names a resource as the proxies of a scope see it.
type Key struct {
	Scope Scope
	ID
}

// Key names a resource of the scope.
func (s Scope) Key(typeURL, name string) Key { return Key{s, ID{typeURL, name}} }

// String names a resource for people: "route table service/bookshop/reviews/80".
func (id ID) String() string {
	kind := "resource"
	switch id.TypeURL {
	case TypeCluster:
		kind = "cluster"
	case TypeEndpoint:
		kind = "endpoints"
	case TypeListener:
		kind = "listener"
	case TypeScopedRoute:
		kind = "way to route table"
	case TypeRoute:
		kind = "route table"
	case TypeExtension:
		kind = "configuration of a filter"
	}
	return kind + " " + id.Name
}
