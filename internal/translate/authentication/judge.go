// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authentication

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// This file asks what the others make, as Envoy does, for those who explain what becomes of a request.

// Judgement is what a waypoint makes of a request's tokens, as far as can be told without verifying any.
type Judgement struct {
	// Unsatisfiable: the waypoint doesn't verify for these policies together, or one can't be carried out.
	Unsatisfiable bool
	// Ambiguous: there is a token that could be read in two ways.
	Ambiguous bool
	// Missing are policies that want a token where the request has none, Verify those whose token must be good, and
	// Nobody's those that a request without one satisfies.
	Missing, Verify, Nobodys []model.Authentication
}

// Judge a request by a set of policies that it must satisfy together, as guards name it. Without a request, whatever
// depends on one is in Verify.
func Judge(a model.Authentications, set []model.PolicyName, q *route.Asked) (out Judgement) {
	known := slices.ContainsFunc(a.Sets, func(s []model.PolicyName) bool { return slices.Equal(s, set) })
	if !known {
		return Judgement{Unsatisfiable: true}
	}
	policies := byName(a)
	for _, name := range set {
		switch p, ok := policies[name]; {
		case !ok || p.Invalid:
			out.Unsatisfiable = true
		case p.Tokens == nil:
		case q == nil || slices.ContainsFunc(found(p), q.Has):
			out.Verify = append(out.Verify, p)
		case p.Tokens.Optional:
			out.Nobodys = append(out.Nobodys, p)
		default:
			out.Missing = append(out.Missing, p)
		}
	}
	out.Ambiguous = q != nil && ambiguous(a, set, *q)
	return out
}

// ambiguous asks the filter Form.
func ambiguous(a model.Authentications, set []model.PolicyName, q route.Asked) bool {
	form := Form(model.Authentications{Policies: a.Policies, Sets: [][]model.PolicyName{set}})
	q.Headers = q.Headers.Clone()
	q.Headers[names.HeaderAuthentication] = []string{model.AuthenticationSet(set)}
	for _, p := range form.GetRules().GetPolicies() {
		if slices.ContainsFunc(p.GetPrincipals(), q.Is) {
			return true
		}
	}
	return false
}
