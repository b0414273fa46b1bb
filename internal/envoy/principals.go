// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import rbacv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

// Principals of the RBAC filter, by which policies match requests.

// Anybody matches all.
func Anybody() *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_Any{Any: true}}
}

// Nobody matches none.
func Nobody() *rbacv3.Principal { return Not(Anybody()) }

// Not matches what another doesn't.
func Not(p *rbacv3.Principal) *rbacv3.Principal {
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_NotId{NotId: p}}
}

// OneOf is Nobody where there is none.
func OneOf(ids ...*rbacv3.Principal) *rbacv3.Principal {
	switch len(ids) {
	case 0:
		return Nobody()
	case 1:
		return ids[0]
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_OrIds{OrIds: &rbacv3.Principal_Set{Ids: ids}}}
}

// AllOf is Anybody where there is none.
func AllOf(ids ...*rbacv3.Principal) *rbacv3.Principal {
	switch len(ids) {
	case 0:
		return Anybody()
	case 1:
		return ids[0]
	}
	return &rbacv3.Principal{Identifier: &rbacv3.Principal_AndIds{AndIds: &rbacv3.Principal_Set{Ids: ids}}}
}
