// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

const (
	shop  = "spiffe://cluster.local/ns/shop/sa/shop"
	other = "spiffe://cluster.local/ns/other/sa/shop"
)

func allow(rules ...model.AccessRule) model.AccessPolicy {
	return model.AccessPolicy{Name: types.NamespacedName{Namespace: "shop", Name: "allow"}, Rules: rules}
}

func deny(rules ...model.AccessRule) model.AccessPolicy {
	return model.AccessPolicy{Name: types.NamespacedName{Namespace: "shop", Name: "deny"}, Deny: true, Rules: rules}
}

func tried(p model.AccessPolicy) model.AccessPolicy {
	p.DryRun = true
	return p
}

func from(identity string) model.AccessRule {
	return model.AccessRule{Sources: []model.AccessSource{{Identity: identity}}}
}

func TestDecide(t *testing.T) {
	below := func(path string) model.AccessRule {
		return model.AccessRule{Name: "below", Request: &model.AccessRequest{
			Methods: []string{"GET"}, Paths: []model.StringMatch{{Type: model.MatchPrefix, Value: path}},
		}}
	}
	get := func(path string) *route.Asked { return Request{Method: "GET", Host: "web", Path: path}.by(shop) }
	network := func(p ...model.AccessPolicy) []model.Guard { return []model.Guard{{Network: p}} }
	requests := func(p ...model.AccessPolicy) []model.Guard { return []model.Guard{{Application: p}} }
	inNamespace := model.AccessRule{Sources: []model.AccessSource{{
		Identity: "spiffe://cluster.local/ns/shop/sa/", Prefix: true,
	}}}
	cel := model.AccessRule{Request: &model.AccessRequest{CEL: "true"}}
	claims := func(path string) model.AccessRule {
		return model.AccessRule{Request: &model.AccessRequest{
			Paths:  []model.StringMatch{{Type: model.MatchExact, Value: path}},
			Claims: []model.AccessClaim{{Name: "sub", Values: []string{"ann"}}},
		}}
	}
	header := func(name string) model.AccessRule {
		return model.AccessRule{Request: &model.AccessRequest{Headers: []model.AccessHeader{{
			Name: name, Value: &model.StringMatch{Type: model.MatchExact, Value: "web"},
		}}}}
	}
	authenticated := func(p ...model.AccessPolicy) []model.Guard {
		return []model.Guard{{Application: p, Authentication: []model.PolicyName{{Namespace: "shop", Name: "x"}}}}
	}
	atPort := allow(model.AccessRule{Ports: []uint16{80}})
	atPort.Ports = []uint16{80}
	for name, tc := range map[string]struct {
		guards []model.Guard
		caller Caller
		want   Verdict
		reason string
	}{
		"nothing": {nil, Caller{}, Allowed, "no policy is in force"},
		"default deny": {
			network(allow()), Caller{identity: shop}, Denied, "no ALLOW policy of level Network matches (shop/allow)",
		},
		"of the mesh": {
			[]model.Guard{{DefaultDeny: true}}, Caller{identity: shop}, Denied, "nobody in by default",
		},
		"an account": {
			network(allow(from(shop))), Caller{identity: shop}, Allowed, "rule 0 of AuthorizationPolicy shop/allow",
		},
		"another": {network(allow(from(shop))), Caller{identity: other}, Denied, "no ALLOW"},
		"a token, and denied": {
			[]model.Guard{{
				Application:    []model.AccessPolicy{allow(below("/a"))},
				Authentication: []model.PolicyName{{Namespace: "shop", Name: "x"}},
			}},
			Caller{request: get("/b")},
			Denied, "no ALLOW policy of level Application",
		},
		"a token where there are no requests": {
			network(deny(model.AccessRule{Name: model.RuleAuthentication})),
			Caller{identity: shop},
			Denied,
			"AuthenticationPolicy shop/deny decides on requests, and the port carries none",
		},
		"claims": {
			authenticated(allow(claims("/a"))),
			Caller{request: get("/a"), claims: unknown},
			Depends,
			"rule 0 of AuthorizationPolicy shop/allow goes by what the request's token claims",
		},
		"claims, elsewhere": {
			authenticated(allow(claims("/a"))), Caller{request: get("/b"), claims: unknown}, Denied, "no ALLOW",
		},
		"claims, and no token": {authenticated(allow(claims("/a"))), Caller{request: get("/a")}, Denied, "no ALLOW"},
		"claims that nobody verifies": {
			requests(allow(claims("/a"))), Caller{request: get("/a"), claims: unknown}, Denied, "no ALLOW",
		},
		"headers that were changed": {
			requests(allow(header("x-a"))), Caller{request: get("/a"), changed: true}, Depends, "headers that are not known",
		},
		"and the host that wasn't": {
			requests(allow(header("host"))), Caller{request: get("/a"), changed: true}, Allowed, "rule 0",
		},
		"an address that the proxy adds": {
			requests(allow(header("x-forwarded-for"))), Caller{request: get("/a")}, Depends, "headers that are not known",
		},
		"denied, whatever depends": {
			requests(deny(cel), allow(below("/a"))), Caller{request: get("/b")}, Denied, "no ALLOW",
		},
		"at the second level, whatever depends": {
			[]model.Guard{{Network: []model.AccessPolicy{deny(cel)}, Application: []model.AccessPolicy{deny(below("/a"))}}},
			Caller{request: get("/a")},
			Denied, "(DENY) matches",
		},
		"no host": {
			requests(allow(header("host"))), Caller{request: Request{Method: "GET", Path: "/"}.by(shop)}, Depends, "say -H",
		},
		"nobody's":    {network(allow(from(shop))), Caller{}, Denied, "no ALLOW"},
		"a namespace": {network(allow(inNamespace)), Caller{identity: shop}, Allowed, "rule 0"},
		"deny goes first": {
			network(allow(from(shop)), deny(from(shop))), Caller{identity: shop}, Denied, "shop/deny (DENY) matches",
		},
		"everybody":             {network(allow(model.AccessRule{})), Caller{}, Allowed, "rule 0"},
		"tried":                 {network(tried(allow())), Caller{}, Allowed, "no policy of level"},
		"another port's policy": {network(atPort), Caller{port: 81}, Allowed, "no policy of level"},
		"its port's":            {network(atPort), Caller{port: 80}, Allowed, "rule 0"},
		"a request":             {requests(allow(below("/a"))), Caller{request: get("/a/b")}, Allowed, "rule below"},
		"no element":            {requests(allow(below("/a"))), Caller{request: get("/ab")}, Denied, "level Application"},
		"not said":              {requests(allow(below("/a"))), Caller{}, Depends, "say --method and --path"},
		"denied spelling":       {requests(deny(below("/a"))), Caller{request: get("/A;x")}, Denied, "(DENY) matches"},
		"two readings":          {requests(allow(below("/a"))), Caller{request: get("/a/b%2fc")}, Denied, "no ALLOW"},
		"an expression may deny": {
			requests(deny(cel), allow(cel), allow(below("/a"))),
			Caller{request: get("/a")},
			Depends,
			"rule 0 of AuthorizationPolicy shop/deny has an expression in CEL",
		},
		"the host as a header": {
			requests(deny(model.AccessRule{Request: &model.AccessRequest{Headers: []model.AccessHeader{{
				Name: "host", Value: &model.StringMatch{Type: model.MatchExact, Value: "web"},
			}}}})), Caller{request: get("/a")}, Denied, "(DENY) matches",
		},
		"an expression": {requests(allow(cel)), Caller{request: get("/")}, Depends, "CEL"},
		"both levels": {
			[]model.Guard{{
				Network:     []model.AccessPolicy{allow(from(shop))},
				Application: []model.AccessPolicy{allow(below("/a"))},
			}},
			Caller{identity: shop, request: get("/b")},
			Denied, "level Application",
		},
		"every guard": {
			append(network(allow(from(shop))), network(deny(from(shop)))...), Caller{identity: shop}, Denied, "(DENY)",
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := decideAll(tc.guards, tc.caller)
			require.Equal(t, tc.want, got.Verdict, got.Reason)
			require.Contains(t, got.Reason, tc.reason)
		})
	}
	require.NotEmpty(t, decideAll(network(tried(allow())), Caller{}).DryRun)
}

// TestAtPod: a waypoint is let in at its ports, and at ports that a waypoint decides about nobody else is.
func TestAtPod(t *testing.T) {
	const waypoint = "spiffe://cluster.local/ns/shop/sa/waypoint"
	g := model.PodGuard{
		Guard:     model.Guard{Network: []model.AccessPolicy{allow()}},
		Waypoints: []model.GuardedPort{{Port: 80, Waypoint: waypoint}}, Only: []uint16{80},
	}
	require.Equal(t, Allowed, atPod(g, Caller{identity: waypoint, port: 80}).Verdict)
	require.Equal(t, Denied, atPod(g, Caller{identity: waypoint, port: 81}).Verdict)
	require.Contains(t, atPod(g, Caller{identity: shop, port: 80}).Reason, "decided by a waypoint")
	require.Equal(t, Denied, atPod(g, Caller{port: 80}).Verdict)
}
