// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"strings"
	"time"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/utils/ptr"

	"github.com/fairway-mesh/fairway/internal/model"
)

// bundle is what one golden case gives.
type bundle struct {
	scopes []*routev3.ScopedRouteConfiguration
	routes []*routev3.RouteConfiguration
	errs   []*RuleError
}

const (
	trustDomain = "cluster.local"
)

var (
	web    = model.ServicePort{Namespace: "shop", Service: "web", Port: 80}
	webV1  = model.ServicePort{Namespace: "shop", Service: "web-v1", Port: 8080}
	db     = model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
	webV2  = model.ServicePort{Namespace: "shop", Service: "web-v2", Port: 8080}
	source = model.ObjectRef{Kind: "HTTPRoute", Namespace: "shop", Name: "web"}
)

// routed is a case of one route table.
func routed(t model.RouteTable) bundle {
	if t.Port == (model.ServicePort{}) {
		t.Port = web
	}
	rc, errs := Configuration(trustDomain, t)
	return bundle{routes: []*routev3.RouteConfiguration{rc}, errs: errs}
}

// rules numbers rules and names their source.
func rules(rr ...model.Rule) model.RouteTable {
	for i := range rr {
		if rr[i].Source == (model.ObjectRef{}) {
			rr[i].Source = source
		}
		rr[i].RuleIndex = i
	}
	return model.RouteTable{Default: pointers(rr)}
}

func pointers(rules []model.Rule) []*model.Rule {
	out := make([]*model.Rule, 0, len(rules))
	for n := range rules {
		out = append(out, &rules[n])
	}
	return out
}

func to(p model.ServicePort, weight uint32, filters ...model.Filter) model.Backend {
	return model.Backend{Port: p, Weight: weight, Filters: filters}
}

func backends(b ...model.Backend) []model.Backend { return b }

func path(t model.MatchType, v string) model.Match {
	return model.Match{Path: &model.StringMatch{Type: t, Value: v}}
}

func named(name string, t model.MatchType, v string) model.NamedMatch {
	return model.NamedMatch{Name: name, StringMatch: model.StringMatch{Type: t, Value: v}}
}

func redirectTo(rd model.Redirect) []model.Filter { return []model.Filter{{Redirect: &rd}} }

func rewriteTo(rw model.Rewrite) []model.Filter { return []model.Filter{{Rewrite: &rw}} }

func prefix(s string) *model.PathChange { return &model.PathChange{Prefix: &s} }

func full(s string) *model.PathChange { return &model.PathChange{Full: &s} }

// cases by the name of the golden file.
var cases = map[string]func() bundle{
	"scopes":         scopesCase,
	"no-routes":      func() bundle { return routed(model.RouteTable{Protocol: model.ProtocolHTTP}) },
	"tcp":            func() bundle { return routed(model.RouteTable{Protocol: model.ProtocolTCP}) },
	"callers":        callersCase,
	"matches":        matchesCase,
	"grpc":           grpcCase,
	"backends":       backendsCase,
	"headers":        headersCase,
	"redirects":      redirectsCase,
	"rewrites":       rewritesCase,
	"timeouts":       timeoutsCase,
	"mirrors":        mirrorsCase,
	"cors":           corsCase,
	"sessions":       sessionsCase,
	"inexpressible":  inexpressibleCase,
	"values-escaped": escapedCase,
	"policies":       policiesCase,
	"authentication": authenticationCase,
	"external-auth":  externalAuthCase,
	"asked":          askedCase,
	"extensions":     extensionsCase,
	"modules":        modulesCase,
	"external":       externalCase,
}

// externalCase has ways out of the cluster: alone, by weight beside Services, under another name, with guards, and with
// sessions.
func externalCase() bundle {
	out := func(name string, port uint16, secure bool) model.Backend {
		return model.Backend{Weight: 1, External: &model.ExternalHost{
			Name: types.NamespacedName{Namespace: "shop", Name: name}, Version: "1", Host: name + ".example", Port: port,
			Secure: secure,
		}}
	}
	under := func(at string, b ...model.Backend) model.Rule {
		return model.Rule{Match: path(model.MatchPrefix, at), Backends: b}
	}
	renamed := under("/renamed", out("pay", 443, true))
	renamed.Filters = []model.Filter{{Rewrite: &model.Rewrite{Hostname: "eu.pay.example"}}}
	guarded := out("pay", 443, true)
	guarded.Guards = []model.Guard{{DefaultDeny: true}}
	session := under("/session", to(webV1, 1), out("pay", 443, true))
	session.SessionPersistence = &model.SessionPersistence{}
	return routed(rules(
		under("/alone", out("pay", 443, true)),
		under("/port", out("pay", 8443, true)),
		under("/split", out("pay", 443, true), to(webV1, 2), out("plain", 80, false)),
		renamed,
		under("/guarded", guarded),
		session,
	))
}

func policiesCase() bundle {
	return routed(model.RouteTable{Protocol: model.ProtocolHTTP, Requests: model.Requests{
		LocalLimit: &model.LocalLimit{Requests: 100, Unit: time.Second},
		GlobalLimit: &model.GlobalLimit{
			Service: webV2, Domain: "shop", Timeout: time.Second, Closed: true, Reserved: []string{"x-mail", "x-user"},
			Descriptors: [][]model.LimitEntry{
				{{Key: "who"}, {Key: "what", Value: "web"}},
				{{Key: "host", Header: "Host"}},
			},
		},
		Delay:    &model.Delay{For: time.Second, Percent: 10},
		Abort:    &model.Abort{Status: 503, Percent: 100},
		MaxBytes: 1 << 20, MaxAnswerBytes: 2 << 20,
		Compression: []model.Compression{
			model.CompressZstd, model.CompressBrotli, model.CompressGzip,
		},
	}})
}

func scopesCase() bundle {
	return bundle{scopes: []*routev3.ScopedRouteConfiguration{
		Scope(model.Attachment{Port: db}),
		Scope(model.Attachment{Port: web}),
	}}
}

func callersCase() bundle {
	t := rules(model.Rule{Backends: backends(to(web, 1))})
	for _, ns := range []string{"front", "test"} {
		t.Callers = append(t.Callers, model.CallerRules{Namespace: ns, Rules: []*model.Rule{{
			Source:   model.ObjectRef{Kind: "HTTPRoute", Namespace: ns, Name: "consumer"},
			RuleName: "named",
			Match:    path(model.MatchPrefix, "/only"),
			Backends: backends(to(webV2, 1)),
		}}})
	}
	return routed(t)
}

func matchesCase() bundle {
	b := backends(to(web, 1))
	return routed(rules(
		model.Rule{Match: path(model.MatchExact, "/exact"), Backends: b},
		model.Rule{Match: path(model.MatchPrefix, "/prefix"), Backends: b},
		model.Rule{Match: path(model.MatchPrefix, "/slash/"), Backends: b},
		model.Rule{Match: path(model.MatchRegex, "/re/[0-9]+"), Backends: b},
		// Near the limit of what is allowed, and far over Envoy's default.
		model.Rule{Match: path(model.MatchRegex, "/[a-z0-9-]{1,900}"), Backends: b},
		model.Rule{Match: path(model.MatchRegex, `/(?:\pL{1,9}|.{1000})`), Backends: b},
		model.Rule{Match: model.Match{Method: "POST"}, Backends: b},
		model.Rule{Match: model.Match{Headers: []model.NamedMatch{
			named("X-Version", model.MatchExact, "v2"), named("Host", model.MatchRegex, `.*\.example`),
		}}, Backends: b},
		model.Rule{Match: model.Match{Query: []model.NamedMatch{
			named("q", model.MatchExact, "1"), named("r", model.MatchRegex, "[a-z]+"),
		}}, Backends: b},
		model.Rule{Match: path(model.MatchPrefix, "/"), Backends: b},
	))
}

func grpcCase() bundle {
	rule := func(m model.Match, b ...model.Backend) model.Rule {
		return model.Rule{
			Source: model.ObjectRef{Kind: "GRPCRoute", Namespace: "shop", Name: "web"}, GRPC: true, Match: m,
			Backends: b,
		}
	}
	return routed(rules(
		rule(model.Match{GRPCService: "a.B", GRPCMethod: "C", GRPCType: model.MatchExact}, to(web, 1)),
		rule(model.Match{GRPCService: "a.B", GRPCType: model.MatchExact}, to(web, 1)),
		rule(model.Match{GRPCMethod: "C.d", GRPCType: model.MatchExact}, to(web, 1)),
		rule(model.Match{GRPCService: "a\\..*", GRPCMethod: "Get|List", GRPCType: model.MatchRegex}, to(web, 1)),
		rule(model.Match{}, model.Backend{Port: webV1, Weight: 1, Invalid: true}, to(web, 1)),
		rule(model.Match{}),
	))
}

func backendsCase() bundle {
	invalid := model.Backend{Port: webV2, Weight: 10, Invalid: true}
	stamp := model.Filter{RequestHeaders: &model.HeaderChange{
		Set:    []model.Header{{Name: "X-Version", Value: "v1"}, {Name: "Host", Value: "v1.example"}},
		Remove: []string{"X-Secret"},
	}}
	answered := model.Filter{ResponseHeaders: &model.HeaderChange{Add: []model.Header{{Name: "X-From", Value: "v1"}}}}
	return routed(rules(
		model.Rule{Match: path(model.MatchExact, "/split"), Backends: backends(to(webV1, 90, stamp, answered),
			to(webV2, 10))},
		model.Rule{Match: path(model.MatchExact, "/one"), Backends: backends(to(webV1, 7, stamp, answered), to(webV2, 0))},
		model.Rule{Match: path(model.MatchExact, "/part-invalid"), Backends: backends(to(webV1, 90), invalid)},
		model.Rule{Match: path(model.MatchExact, "/all-invalid"), Backends: backends(invalid)},
		model.Rule{Match: path(model.MatchExact, "/zero"), Backends: backends(to(webV1, 0), to(webV2, 0))},
		model.Rule{Match: path(model.MatchExact, "/none")},
		model.Rule{Match: path(model.MatchExact, "/huge"), Backends: backends(to(webV1, 1<<32-1), to(webV2, 1<<32-1))},
	))
}

func headersCase() bundle {
	return routed(rules(model.Rule{
		Filters: []model.Filter{
			{RequestHeaders: &model.HeaderChange{
				Set:    []model.Header{{Name: "X-Set", Value: "s"}, {Name: "Host", Value: "other.example"}, {Name: "X-Empty"}},
				Add:    []model.Header{{Name: "X-Add", Value: "a"}, {Name: "x-gone", Value: "never"}},
				Remove: []string{"X-Gone", "Host"},
			}},
			{ResponseHeaders: &model.HeaderChange{
				Set: []model.Header{{Name: "Server", Value: "s"}}, Add: []model.Header{{Name: "Vary", Value: "x"}},
				Remove: []string{"X-Powered-By"},
			}},
		},
		Backends: backends(to(web, 1)),
	}))
}

func redirectsCase() bundle {
	p := func(s string) model.Match { return path(model.MatchPrefix, s) }
	t := rules(
		model.Rule{Match: p("/scheme"), Filters: redirectTo(model.Redirect{Scheme: "https"})},
		model.Rule{Match: p("/scheme-host"), Filters: redirectTo(model.Redirect{Scheme: "https", Hostname: "example.org"})},
		model.Rule{Match: p("/scheme-port"), Filters: redirectTo(model.Redirect{Scheme: "https", Port: 8443})},
		model.Rule{Match: p("/host"), Filters: redirectTo(model.Redirect{Hostname: "example.org", StatusCode: 301})},
		model.Rule{Match: p("/port"), Filters: redirectTo(model.Redirect{Port: 8083})},
		model.Rule{Match: p("/port-80"), Filters: redirectTo(model.Redirect{Port: 80})},
		model.Rule{Match: p("/full"), Filters: redirectTo(model.Redirect{Path: full("/new"), StatusCode: 308})},
		model.Rule{Match: p("/old"), Filters: redirectTo(model.Redirect{Path: prefix("/new/"), StatusCode: 307})},
		model.Rule{Match: p("/strip"), Filters: redirectTo(model.Redirect{Path: prefix("/"), StatusCode: 303})},
		model.Rule{Filters: redirectTo(model.Redirect{Path: prefix("/under")})},
	)
	t.Port = model.ServicePort{Namespace: "shop", Service: "web", Port: 8080}
	return routed(t)
}

func rewritesCase() bundle {
	b := backends(to(web, 1))
	rule := func(m model.Match, rw model.Rewrite) model.Rule {
		return model.Rule{Match: m, Filters: rewriteTo(rw), Backends: b}
	}
	p := func(s string) model.Match { return path(model.MatchPrefix, s) }
	return routed(rules(
		rule(p("/host"), model.Rewrite{Hostname: "other.example"}),
		rule(p("/full"), model.Rewrite{Path: full("/one")}),
		rule(p("/foo"), model.Rewrite{Path: prefix("/xyz")}),
		rule(p("/foo-slash/"), model.Rewrite{Path: prefix("/xyz/")}),
		rule(p("/strip.1"), model.Rewrite{Path: prefix("/")}),
		rule(p("/empty"), model.Rewrite{Path: prefix("")}),
		rule(p("/"), model.Rewrite{Path: prefix("/root")}),
		rule(model.Match{}, model.Rewrite{Path: prefix("/")}),
	))
}

func timeoutsCase() bundle {
	b := backends(to(web, 1))
	second := ptr.To(time.Second)
	retry := &model.Retry{Codes: []uint32{500, 503}, Attempts: 3, Backoff: 10 * time.Millisecond}
	return routed(rules(
		model.Rule{Match: path(model.MatchExact, "/request"), RequestTimeout: second, Backends: b},
		model.Rule{
			Match: path(model.MatchExact, "/try"), RequestTimeout: ptr.To(time.Minute), BackendTimeout: second,
			Backends: b,
		},
		model.Rule{Match: path(model.MatchExact, "/disabled"), RequestTimeout: ptr.To(time.Duration(0)), Backends: b},
		model.Rule{Match: path(model.MatchExact, "/retry"), Retry: retry, Backends: b},
		model.Rule{
			Match: path(model.MatchExact, "/both"), RequestTimeout: ptr.To(time.Minute), BackendTimeout: second,
			Retry: &model.Retry{Attempts: 1}, Backends: b,
		},
	))
}

func mirrorsCase() bundle {
	m := func(p model.ServicePort, n, d uint32) model.Filter {
		return model.Filter{Mirror: &model.Mirror{Backend: to(p, 1), Numerator: n, Denominator: d}}
	}
	gone := model.Filter{Mirror: &model.Mirror{Backend: model.Backend{Port: webV2, Invalid: true}}}
	return routed(rules(model.Rule{
		Filters:  []model.Filter{m(webV1, 1, 1), m(webV2, 1, 3), m(webV2, 0, 100), gone},
		Backends: backends(to(web, 1)),
	}))
}

func corsCase() bundle {
	rule := func(c model.CORS) model.Rule {
		return model.Rule{Filters: []model.Filter{{CORS: &c}}, Backends: backends(to(web, 1))}
	}
	return routed(rules(
		rule(model.CORS{
			AllowOrigins: []string{"https://a.example", "https://*.b.example:8443"}, AllowMethods: []string{"GET", "PUT"},
			AllowHeaders: []string{"x-a", "x-b"}, ExposeHeaders: []string{"x-c"}, AllowCredentials: true, MaxAge: time.Hour,
		}),
		rule(model.CORS{AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}}),
		rule(model.CORS{
			AllowOrigins: []string{"*"}, AllowMethods: []string{"*"}, AllowHeaders: []string{"*"},
			AllowCredentials: true,
		}),
	))
}

func sessionsCase() bundle {
	rule := func(s model.SessionPersistence) model.Rule {
		return model.Rule{SessionPersistence: &s, Backends: backends(to(web, 1))}
	}
	at := func(p model.Match, s model.SessionPersistence, b ...model.Backend) model.Rule {
		return model.Rule{Match: p, SessionPersistence: &s, Backends: b}
	}
	owners := func(p string, b ...model.Backend) model.Rule {
		for n := range b {
			b[n].Session = &model.SessionPersistence{}
		}
		return model.Rule{Match: path(model.MatchPrefix, p), Backends: b}
	}
	two := backends(to(web, 1), to(webV1, 3), model.Backend{Weight: 1, Invalid: true})
	return routed(rules(rule(model.SessionPersistence{Name: "sid", CookieLifetime: time.Hour}),
		rule(model.SessionPersistence{Header: true}),
		at(path(model.MatchPrefix, "/below"), model.SessionPersistence{}, to(web, 1)),
		at(path(model.MatchExact, "/odd;path"), model.SessionPersistence{}, to(web, 1)),
		at(path(model.MatchExact, "/split"), model.SessionPersistence{CookieLifetime: time.Hour}, two...),
		at(path(model.MatchExact, "/split-by-header"), model.SessionPersistence{Header: true}, two...),
		owners("/owners", to(web, 1)), owners("/owners-split", to(web, 1), to(webV1, 1)),
	))
}

func inexpressibleCase() bundle {
	b := backends(to(web, 1))
	return routed(rules(
		model.Rule{Match: path(model.MatchRegex, "("), Backends: b},
		model.Rule{Match: path(model.MatchPrefix, "/a?b"), Backends: b},
		model.Rule{Match: path(model.MatchExact, "/a"), Filters: rewriteTo(model.Rewrite{Path: prefix("/b")}), Backends: b},
		model.Rule{Match: path(model.MatchExact, "/b"), Filters: redirectTo(model.Redirect{StatusCode: 299})},
		model.Rule{Match: path(model.MatchExact, "/c"), Filters: rewriteTo(model.Rewrite{Hostname: "a\nb"}), Backends: b},
		model.Rule{Match: path(model.MatchExact, "/d\xff"), Backends: b},
		model.Rule{Match: path(model.MatchRegex, strings.Repeat(".{1000}", 3)), Backends: b},
		model.Rule{Match: path(model.MatchExact, "/e"), Backends: b, Filters: []model.Filter{
			{RequestHeaders: &model.HeaderChange{Set: []model.Header{{Name: "X-Fairway-Port", Value: "80.other.shop"}}}},
		}},
		model.Rule{Match: path(model.MatchExact, "/fine"), Backends: b},
	))
}

func escapedCase() bundle {
	set := &model.HeaderChange{Set: []model.Header{{Name: "x-raw", Value: "100% %ENVIRONMENT(HOME)%"}}}
	return routed(rules(
		model.Rule{Match: path(model.MatchPrefix, "/a"), Backends: backends(to(web, 1)), Filters: []model.Filter{
			{RequestHeaders: set}, {ResponseHeaders: set}, {Rewrite: &model.Rewrite{Path: full("/%41%REQ(x)%")}},
		}},
		model.Rule{Match: path(model.MatchPrefix, "/b"), Filters: redirectTo(model.Redirect{Path: full("/%41%REQ(x)%")})},
	))
}

// authenticationCase has a port that needs authentication, by rules that lead to what needs another or none, and rules
// about claims.
func authenticationCase() bundle {
	name := func(s string) model.PolicyName { return model.PolicyName{Namespace: "shop", Name: s} }
	claims := model.AccessPolicy{Name: name("admins"), Rules: []model.AccessRule{{Request: &model.AccessRequest{
		Claims: []model.AccessClaim{
			{Name: "realm_access.roles", Values: []string{"admin"}},
			{Name: "level", Values: []string{"7"}},
			{Name: "verified", Values: []string{"true"}},
		},
	}}}}
	own := []model.Guard{{Application: []model.AccessPolicy{claims}, Authentication: []model.PolicyName{name("web")}}}
	guarded := func(p model.ServicePort, weight uint32, guards ...model.Guard) model.Backend {
		out := to(p, weight)
		out.Guards = guards
		return out
	}
	t := rules(
		model.Rule{Match: model.Match{Method: "GET"}, Backends: backends(guarded(webV1, 1, own...))},
		model.Rule{Match: model.Match{Method: "PUT"}, Backends: backends(
			guarded(webV1, 1, append([]model.Guard{{Authentication: []model.PolicyName{name("v1"), name("web")}}}, own...)...),
			guarded(webV2, 1),
		)},
	)
	t.Guards = own
	return routed(t)
}
