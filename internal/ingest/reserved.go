// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A rate limit service is asked after tokens were verified and authorization services were asked, and before policies
// decide. So it sets none of the headers that the former vouch for, and none that the latter go by: that a request was
// counted says nothing of who sent it.

// ofAttributes are headers that expressions know by other names.
var ofAttributes = []string{"referer", "user-agent", "x-request-id"}

// reservedIn are such headers of all ways that requests of a table take, as model.HeaderSpelled has them; sorted.
func (i *Ingest) reservedIn(c *memo.Ctx, t *model.RouteTable) []string {
	var out []string
	guards, rules := slices.Clone(t.Guards), slices.Clone(t.Default)
	for _, caller := range t.Callers {
		rules = append(rules, caller.Rules...)
	}
	for _, r := range rules {
		if a := r.ExternalAuth(); a != nil {
			out = append(out, vouchedHeaders(model.Authentication{Asked: a})...)
		}
		for _, b := range r.Backends {
			guards = append(guards, b.Guards...)
		}
	}
	for _, g := range guards {
		for _, name := range g.Authentication {
			if p := i.authentication.Get(c, name); p != nil {
				out = append(out, vouchedHeaders(p.Content.Authentication)...)
			}
		}
		for _, p := range slices.Concat(g.Network, g.Application) {
			for _, r := range p.Rules {
				out = append(out, headersOf(r.Request)...)
			}
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// headersOf a request are what a rule may go by.
func headersOf(r *model.AccessRequest) (out []string) {
	if r == nil {
		return nil
	}
	for _, h := range r.Headers {
		out = append(out, model.HeaderSpelled(h.Name))
	}
	if r.CEL != "" {
		out = append(out, ofAttributes...)
		for _, name := range envoy.CELKeys(r.CEL) {
			out = append(out, model.HeaderSpelled(name))
		}
	}
	return out
}

// reserving is a limit of a table whose service doesn't set what is reserved there.
func (i *Ingest) reserving(c *memo.Ctx, t *model.RouteTable, l *model.GlobalLimit) *model.GlobalLimit {
	if l == nil || l.Invalid {
		return l
	}
	reserved := i.reservedIn(c, t)
	if len(reserved) == 0 {
		return l
	}
	out := *l
	out.Reserved = reserved
	return &out
}
