// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Routes change requests after tokens were verified and services were asked, and the application takes what it gets for
// what was found to be true. So what a policy vouches for no route of another namespace sets: tokens, and headers of
// claims and of authorization services. A route of the policy's own namespace may.

// forges says what a rule would set in requests to a backend that policies of other namespaces vouch for; "" if
// nothing.
func (i *Ingest) forges(c *memo.Ctx, r model.Rule, b model.Backend, guards []model.Guard) string {
	needed := model.Needed(guards)
	if len(needed) == 0 {
		return ""
	}
	for _, change := range changesOf(r, b) {
		for _, name := range needed {
			if name.Namespace == r.Source.Namespace {
				continue
			}
			p := i.authentication.Get(c, name)
			if p == nil {
				continue
			}
			if what := change.of(p.Content.Authentication); what != "" {
				return fmt.Sprintf("%s of a request is what AuthenticationPolicy %s vouches for", what, name)
			}
		}
	}
	return ""
}

// requestChange is a header that a rule sets, as model.HeaderSpelled has it, or the query; exactly one field is set.
type requestChange struct {
	header string
	query  bool
}

func changesOf(r model.Rule, b model.Backend) (out []requestChange) {
	for _, f := range slices.Concat(r.Filters, b.Filters) {
		if h := f.RequestHeaders; h != nil {
			for _, set := range slices.Concat(h.Set, h.Add) {
				out = append(out, requestChange{header: model.HeaderSpelled(set.Name)})
			}
		}
		if w := f.Rewrite; w != nil && w.Path != nil {
			for _, path := range []*string{w.Path.Full, w.Path.Prefix} {
				if path != nil && strings.Contains(*path, "?") {
					out = append(out, requestChange{query: true})
				}
			}
		}
	}
	return out
}

// of a policy is what the change sets that the policy vouches for.
func (ch requestChange) of(a model.Authentication) string {
	fromQuery := func(p model.TokenProvider) bool { return len(p.Params) > 0 }
	switch {
	case ch.query && a.Tokens != nil && slices.ContainsFunc(a.Tokens.Providers, fromQuery):
		return "the query"
	case !ch.query && slices.Contains(vouchedHeaders(a), ch.header):
		return fmt.Sprintf("header %q", ch.header)
	}
	return ""
}

// vouchedHeaders are those that a policy vouches for, as model.HeaderSpelled has them.
func vouchedHeaders(a model.Authentication) (out []string) {
	add := func(header string) { out = append(out, model.HeaderSpelled(header)) }
	if a.Asked != nil {
		for _, taken := range a.Asked.Taken {
			add(taken)
		}
	}
	if a.Tokens == nil {
		return out
	}
	for _, p := range a.Tokens.Providers {
		if len(p.Cookies) > 0 {
			add("cookie")
		}
		for _, h := range p.Headers {
			add(h.Name)
		}
		for _, h := range p.Claims {
			add(h.Header)
		}
	}
	return out
}

// forgedBy is about the first of a route's rules that does so, by the table of a port.
func (i *Ingest) forgedBy(c *memo.Ctx, rules []model.Rule, at model.ServicePort) *Verdict {
	b := i.guardBuilder(c, at)
	for _, r := range rules {
		for _, backend := range r.Backends {
			if backend.Invalid || len(changesOf(r, backend)) == 0 {
				continue
			}
			if what := i.forges(c, r, backend, b.guards(r, backend)); what != "" {
				return &Verdict{Reason: string(gwv1.RouteReasonRefNotPermitted), Message: fmt.Sprintf(
					"requests for backend Service %s are answered 500: %s, and no route of another namespace may set it: "+
						"leave that out, or put the route into that namespace", backend.Port.ServiceName(), what)}
			}
		}
	}
	return nil
}
