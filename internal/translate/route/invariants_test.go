// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"cmp"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// invariants hold for everything that is ever generated.
func invariants(t *testing.T, b bundle) {
	t.Helper()
	names := map[string]bool{}
	unique := func(kind, name string) {
		if name == "" || names[kind+name] {
			t.Errorf("%s %q: empty or twice", kind, name)
		}
		names[kind+name] = true
	}
	valid := func(name string, m envoy.Message) {
		if err := envoy.Check(m); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, rc := range b.routes {
		unique("routes", rc.GetName())
		valid(rc.GetName(), rc)
		domains := map[string]bool{}
		for _, vh := range rc.GetVirtualHosts() {
			unique("virtual host of "+rc.GetName(), vh.GetName())
			for _, d := range vh.GetDomains() {
				if domains[d] {
					t.Errorf("%s: domain %q twice", rc.GetName(), d)
				}
				domains[d] = true
			}
			for _, r := range vh.GetRoutes() {
				routeInvariants(t, r)
			}
		}
	}
}

func routeInvariants(t *testing.T, r *routev3.Route) {
	t.Helper()
	a := r.GetRoute()
	if a == nil {
		return
	}
	if a.GetTimeout() == nil {
		t.Errorf("%s: Envoy's default timeout of 15 s applies", r.GetName())
	}
	rewrites := 0
	for _, set := range []bool{a.GetPathRewrite() != "", a.GetPrefixRewrite() != "", a.GetRegexRewrite() != nil} {
		if set {
			rewrites++
		}
	}
	if rewrites > 1 {
		t.Errorf("%s: %d path rewrites", r.GetName(), rewrites)
	}
	for name, c := range r.GetTypedPerFilterConfig() {
		if m, err := c.UnmarshalNew(); err != nil {
			t.Errorf("%s: configuration of %s: %v", r.GetName(), name, err)
		} else if v, ok := m.(envoy.Message); !ok || v.ValidateAll() != nil {
			t.Errorf("%s: configuration of %s is not valid", r.GetName(), name)
		}
	}
	if w := a.GetWeightedClusters(); w != nil {
		var sum uint64
		for _, c := range w.GetClusters() {
			sum += uint64(c.GetWeight().GetValue())
		}
		if sum == 0 || sum >= 1<<32 {
			t.Errorf("%s: weights sum to %d", r.GetName(), sum)
		}
	}
	asked := r.GetRequestHeadersToAdd()
	for _, c := range a.GetWeightedClusters().GetClusters() {
		asked = append(asked, c.GetRequestHeadersToAdd()...)
	}
	for _, h := range asked {
		if strings.HasPrefix(strings.ToLower(h.GetHeader().GetKey()), envoy.ControlHeaders) {
			t.Errorf("%s: %s steers the proxy", r.GetName(), h.GetHeader().GetKey())
		}
	}
	for _, h := range slices.Concat(r.GetRequestHeadersToAdd(), r.GetResponseHeadersToAdd()) {
		if isHost(h.GetHeader().GetKey()) {
			t.Errorf("%s: Envoy refuses to change the host header", r.GetName())
		}
	}
}

// TestRouteConfigurationIsTotal feeds models that no ingest would make.
func TestRouteConfigurationIsTotal(t *testing.T) {
	for seed := range uint64(3000) {
		g := &generator{rand.New(rand.NewPCG(seed, 1))}
		table := g.table()
		rc, errs := Configuration(trustDomain, table)
		invariants(t, bundle{routes: []*routev3.RouteConfiguration{rc}})
		again, _ := Configuration(trustDomain, table)
		if !proto.Equal(rc, again) {
			t.Error("not deterministic")
		}
		for _, e := range errs {
			if e.err == nil || e.Error() == "" {
				t.Error("an error without a cause")
			}
		}
		if t.Failed() {
			t.Fatalf("seed %d: %+v", seed, table)
		}
	}
}

// TestCheckRuleFindsWhatATableWould: a rule that passes has nothing wrong with it in any table, under any caller's
// guard.
func TestCheckRuleFindsWhatATableWould(t *testing.T) {
	for seed := range uint64(2000) {
		g := &generator{rand.New(rand.NewPCG(seed, 3))}
		table := g.table()
		var all []*model.Rule
		for _, c := range table.Callers {
			all = append(all, c.Rules...)
		}
		var want []bool
		for _, r := range append(all, table.Default...) {
			if badMatch, err := CheckRule(*r); err != nil {
				want = append(want, badMatch)
			}
		}
		var got []bool
		_, errs := Configuration(trustDomain, table)
		for _, e := range errs {
			got = append(got, e.dropped)
		}
		if !slices.Equal(want, got) {
			t.Fatalf("seed %d: CheckRule finds %v, Configuration %v", seed, want, got)
		}
	}
}

// TestEveryRuleIsAnswered: no rule vanishes unless it is reported.
func TestEveryRuleIsAnswered(t *testing.T) {
	for seed := range uint64(1000) {
		g := &generator{rand.New(rand.NewPCG(seed, 2))}
		table := model.RouteTable{Attachment: model.Attachment{Port: web}, Default: g.rules()}
		rc, errs := Configuration(trustDomain, table)
		dropped := 0
		for _, e := range errs {
			if e.dropped {
				dropped++
			}
		}
		if got, want := len(rc.GetVirtualHosts()[0].GetRoutes()), len(table.Default)-dropped; got < want {
			t.Fatalf("seed %d: %d rules, %d left out, %d routes", seed, len(table.Default), dropped, got)
		}
	}
}

// generator makes values, among them many that are wrong.
type generator struct{ *rand.Rand }

var nasty = []string{
	"", "/", "//", "/foo", "/foo/", "/foo?bar", "/a#b", "x", "foo", "host", "Host", ":authority", ":method", "GET", "%",
	"%%",
	"%REQ(x)%", "%ENVIRONMENT(HOME)%", "a\r\nb", "\x00", "\xff\xfe", "(", "[", "[a-z]+", ".*", "^/x$", "\\1", "\\", "a b",
	"ü",
	"example.org", "*", `\pL{20}`, `(?i)[^/]{1,200}\.(?:png|\PL)`, ".{1000}", "https://*.example.org",
	strings.Repeat("x", 9000), "http", "https", "HTTPS", "x-h",
	"X-Envoy-Retry-On",
}

func (g *generator) s() string { return nasty[g.IntN(len(nasty))] }

func (g *generator) some(n int) bool { return g.IntN(n) == 0 }

func many[T any](g *generator, n int, f func() T) []T {
	var out []T
	for range g.IntN(n) {
		out = append(out, f())
	}
	return out
}

func (g *generator) matchType() model.MatchType {
	return []model.MatchType{model.MatchExact, model.MatchPrefix, model.MatchRegex, "", "Bogus"}[g.IntN(5)]
}

func (g *generator) stringMatch() model.StringMatch {
	return model.StringMatch{Type: g.matchType(), Value: g.s()}
}

func (g *generator) named() model.NamedMatch {
	return model.NamedMatch{Name: g.s(), StringMatch: g.stringMatch()}
}

func (g *generator) header() model.Header { return model.Header{Name: g.s(), Value: g.s()} }

func (g *generator) headers() *model.HeaderChange {
	return &model.HeaderChange{Set: many(g, 3, g.header), Add: many(g, 3, g.header), Remove: many(g, 3, g.s)}
}

func (g *generator) path() *model.PathChange {
	s := g.s()
	switch g.IntN(4) {
	case 0:
		return &model.PathChange{Full: &s}
	case 1:
		return &model.PathChange{Prefix: &s}
	case 2:
		return &model.PathChange{}
	}
	return nil
}

func (g *generator) number() uint32 {
	return []uint32{0, 1, 2, 50, 100, 1_000_000, 1<<32 - 1}[g.IntN(7)]
}

func (g *generator) duration() *time.Duration {
	d := []time.Duration{-1, 0, 1, time.Microsecond, time.Second, 1<<63 - 1, -1 << 63}[g.IntN(7)]
	if g.some(3) {
		return nil
	}
	return &d
}

func (g *generator) backend() model.Backend {
	return model.Backend{
		Port:   model.ServicePort{Namespace: g.s(), Service: g.s(), Port: uint16(g.number())},
		Weight: g.number(), Invalid: g.some(3), Filters: many(g, 3, g.filter),
	}
}

func (g *generator) leaf() model.Backend {
	return model.Backend{Port: webV1, Weight: g.number(), Invalid: g.some(3)}
}

func (g *generator) filter() model.Filter {
	switch g.IntN(8) {
	case 0:
		return model.Filter{RequestHeaders: g.headers()}
	case 1:
		return model.Filter{ResponseHeaders: g.headers()}
	case 2:
		return model.Filter{Redirect: &model.Redirect{
			Scheme: g.s(), Hostname: g.s(), Path: g.path(), Port: uint16(g.number()),
			StatusCode: []int{0, 301, 302, 303, 307, 308, 99}[g.IntN(7)],
		}}
	case 3:
		return model.Filter{Rewrite: &model.Rewrite{Hostname: g.s(), Path: g.path()}}
	case 4:
		return model.Filter{Mirror: &model.Mirror{Backend: g.leaf(), Numerator: g.number(), Denominator: g.number()}}
	case 5:
		return model.Filter{CORS: &model.CORS{
			AllowOrigins: many(g, 3, g.s), AllowMethods: many(g, 3, g.s), AllowHeaders: many(g, 3, g.s),
			ExposeHeaders:    many(g, 3, g.s),
			AllowCredentials: g.some(2), MaxAge: []time.Duration{0, -1, time.Hour}[g.IntN(3)],
		}}
	}
	if g.some(2) {
		return model.Filter{ExternalAuth: &model.ExternalAuth{
			Service: g.backend().Port, Invalid: g.some(5), GRPC: g.some(2), Path: g.s(), Shown: many(g, 3, g.s),
			Taken: many(g, 3, g.s), MaxBody: g.number(), Timeout: *cmp.Or(g.duration(), new(time.Duration)),
		}}
	}
	return model.Filter{}
}

func (g *generator) rule() model.Rule {
	r := model.Rule{
		Source:    model.ObjectRef{Kind: g.s(), Namespace: g.s(), Name: g.s()},
		RuleName:  g.s(),
		RuleIndex: g.IntN(3) - 1,
		GRPC:      g.some(3),
		Invalid:   g.some(9),
		Match:     model.Match{Headers: many(g, 3, g.named), Query: many(g, 3, g.named)},
		Filters:   many(g, 4, g.filter), Backends: many(g, 4, g.backend),
		RequestTimeout: g.duration(), BackendTimeout: g.duration(),
	}
	if g.some(2) {
		s := g.stringMatch()
		r.Match.Path = &s
	}
	if g.some(4) {
		r.Match.Method, r.Match.GRPCService, r.Match.GRPCMethod, r.Match.GRPCType = g.s(), g.s(), g.s(), g.matchType()
	}
	if g.some(3) {
		r.Retry = &model.Retry{Codes: many(g, 3, g.number), Attempts: g.IntN(5) - 1}
		if d := g.duration(); d != nil {
			r.Retry.Backoff = *d
		}
	}
	for n := range r.Backends {
		if g.some(4) {
			r.Backends[n].Session = &model.SessionPersistence{Name: g.s(), Header: g.some(2)}
		}
	}
	if g.some(4) {
		r.SessionPersistence = &model.SessionPersistence{Name: g.s(), Header: g.some(2)}
		if d := g.duration(); d != nil {
			r.SessionPersistence.CookieLifetime = *d
		}
	}
	return r
}

func (g *generator) rules() []*model.Rule { return pointers(many(g, 5, g.rule)) }

func (g *generator) table() model.RouteTable {
	return model.RouteTable{
		Attachment: model.Attachment{Port: web}, Default: g.rules(),
		Callers: many(g, 3, func() model.CallerRules {
			return model.CallerRules{Namespace: g.s(), Rules: g.rules()}
		}),
	}
}
