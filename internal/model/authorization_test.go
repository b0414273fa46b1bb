// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"
)

// TestGuardRefuses: what depends on a request refuses a caller, be it by a rule that denies or by one that allows.
func TestGuardRefuses(t *testing.T) {
	const waypoint = "spiffe://cluster.local/ns/shop/sa/waypoint"
	name := types.NamespacedName{Namespace: "auth", Name: "p"}
	from := func(identity string, prefix bool, r *AccessRequest) AccessRule {
		return AccessRule{Sources: []AccessSource{{Identity: identity, Prefix: prefix}}, Request: r}
	}
	policies := func(deny, dryRun bool, rules ...AccessRule) []AccessPolicy {
		return []AccessPolicy{{Name: name, Deny: deny, DryRun: dryRun, Rules: rules}}
	}
	get := &AccessRequest{Methods: []string{"GET"}}
	shop := "spiffe://cluster.local/ns/shop/"
	const noNetwork = "no ALLOW policy of level Network matches"
	const noApplication = "no ALLOW policy of level Application matches"
	for what, tc := range map[string]struct {
		guard Guard
		why   string
	}{
		"nothing":      {},
		"default deny": {Guard{DefaultDeny: true}, noNetwork},
		"default deny, and allowed": {
			Guard{DefaultDeny: true, Network: policies(false, false, from(waypoint, false, nil))}, "",
		},
		"allowed by namespace":  {Guard{Network: policies(false, false, from(shop, true, nil))}, ""},
		"another allowed":       {Guard{Network: policies(false, false, from(shop, false, nil))}, noNetwork},
		"some requests allowed": {Guard{Application: policies(false, false, from(waypoint, false, get))}, noApplication},
		"everything allowed":    {Guard{Application: policies(false, false, AccessRule{})}, ""},
		"denied":                {Guard{Network: policies(true, false, from(shop, true, nil))}, "DENY auth/p rule 0"},
		"another denied":        {Guard{Network: policies(true, false, from(shop, false, nil))}, ""},
		"some requests denied":  {Guard{Application: policies(true, false, AccessRule{Request: get})}, "DENY auth/p rule 0"},
		"tried only":            {Guard{Network: policies(true, true, AccessRule{})}, ""},
		"tokens":                {Guard{Authentication: []types.NamespacedName{name}}, "AuthenticationPolicy auth/p"},
	} {
		t.Run(what, func(t *testing.T) { require.Equal(t, tc.why, tc.guard.Refuses(AccessSource{Identity: waypoint})) })
	}
}

// TestGuardRefusesSome: of all accounts of a namespace, one that is refused is enough.
func TestGuardRefusesSome(t *testing.T) {
	const shop, account = "spiffe://cluster.local/ns/shop/sa/", "spiffe://cluster.local/ns/shop/sa/web"
	rule := func(deny bool, s AccessSource) Guard {
		return Guard{Network: []AccessPolicy{{Deny: deny, Rules: []AccessRule{{Sources: []AccessSource{s}}}}}}
	}
	for what, tc := range map[string]struct {
		source         AccessSource
		denies, allows bool
	}{
		"one account":       {AccessSource{Identity: account}, true, false},
		"all accounts":      {AccessSource{Identity: shop, Prefix: true}, true, true},
		"more than those":   {AccessSource{Identity: "spiffe://cluster.local/", Prefix: true}, true, true},
		"some of those":     {AccessSource{Identity: shop + "w", Prefix: true}, true, false},
		"others":            {AccessSource{Identity: "spiffe://cluster.local/ns/shop2/sa/", Prefix: true}, false, false},
		"an account of one": {AccessSource{Identity: "spiffe://cluster.local/ns/other/sa/web"}, false, false},
	} {
		t.Run(what, func(t *testing.T) {
			who := AccessSource{Identity: shop, Prefix: true}
			require.Equal(t, tc.denies, rule(true, tc.source).Refuses(who) != "")
			require.Equal(t, tc.allows, rule(false, tc.source).Refuses(who) == "")
		})
	}
}
