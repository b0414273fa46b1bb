// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

const (
	sharedScope = xds.Scope("waypoint/bookshop/fairway-waypoint")
	sharedTable = "service/bookshop/reviews/80"
)

// sharedCluster is the case "split" and a tenant who may have routes for the owner's Service.
func sharedCluster(t testing.TB, more ...client.Object) []client.Object {
	tenant := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "tenant", Labels: map[string]string{
		names.LabelMesh: names.MeshEnabled,
	}}}
	return append(append(caseOf(t, "split"), tenant), more...)
}

// routeOf sends paths that match an expression to the Service, with a header.
func routeOf(namespace, name string, generation int64, header string, expressions ...string) *gwv1.HTTPRoute {
	r := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Generation: generation}}
	r.Spec.ParentRefs = []gwv1.ParentReference{
		{
			Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Namespace: new(gwv1.Namespace("bookshop")),
			Name: "reviews",
		},
	}
	for _, e := range expressions {
		r.Spec.Rules = append(r.Spec.Rules, gwv1.HTTPRouteRule{
			Matches: []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Type: new(gwv1.PathMatchRegularExpression), Value: &e}}},
			Filters: []gwv1.HTTPRouteFilter{
				{Type: gwv1.HTTPRouteFilterRequestHeaderModifier, RequestHeaderModifier: &gwv1.HTTPHeaderFilter{
					Set: []gwv1.HTTPHeader{{Name: "x-of", Value: header}},
				}},
			},
			BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{BackendObjectReference: gwv1.BackendObjectReference{
				Namespace: new(gwv1.Namespace("bookshop")), Name: "reviews", Port: new(gwv1.PortNumber(80)),
			}}}},
		})
	}
	return r
}

// proxies are those of a scope that reject route tables for reasons of their own; two of them agree.
type proxies struct {
	t        testing.TB
	h        *harness
	why      func(*routev3.RouteConfiguration) string
	answered map[string]string // by table: the version that they have decided about
	runs     map[string]*routev3.RouteConfiguration
	tables   int // that were shown to them
	seen     func(table string)
}

// startProxies connects them to an engine that knows the objects.
func startProxies(t testing.TB, why func(*routev3.RouteConfiguration) string, objects ...client.Object) *proxies {
	p := &proxies{
		t: t, h: newHarness(t), why: why, answered: map[string]string{},
		runs: map[string]*routev3.RouteConfiguration{}, seen: func(string) {},
	}
	p.h.opts.Acks = p
	p.change(objects...)
	p.h.Synced()
	p.h.process()
	p.h.subscribe(sharedScope)
	p.h.Interest(xds.Interest{Key: sharedScope.Key(xds.TypeRoute, names.RouteTrial), Wanted: true})
	p.settle()
	return p
}

func (p *proxies) table(name string) (*xds.Resource, *routev3.RouteConfiguration) {
	r, _ := p.h.cache.Get(sharedScope.Key(xds.TypeRoute, name))
	if r == nil {
		return nil, nil
	}
	return r, as[*routev3.RouteConfiguration](p.t, r)
}

func (p *proxies) State(k xds.Key) (out xds.ResourceState) {
	name := k.Name
	r, rc := p.table(name)
	if r == nil {
		return out
	}
	out.Version = r.Version()
	a := xds.ProxyAck{State: xds.Pending}
	if p.answered[name] == r.Version() {
		if a.State = xds.Acked; p.why(rc) != "" {
			a.State, a.Error = xds.Rejected, p.why(rc)
		}
	}
	for _, pod := range []string{"bookshop/a", "bookshop/b"} {
		a.Proxy = xds.Proxy{Scope: sharedScope, Pod: pod}
		out.Proxies = append(out.Proxies, a)
	}
	return out
}

func (p *proxies) change(objects ...client.Object) {
	for _, o := range objects {
		p.h.Set(o)
	}
}

// settle lets them answer until there is nothing new.
func (p *proxies) settle() {
	p.h.process()
	for answered := true; answered; {
		answered = false
		for _, r := range p.h.cache.List(sharedScope, xds.TypeRoute) {
			if p.answered[r.Name()] == r.Version() {
				continue
			}
			answered, p.answered[r.Name()] = true, r.Version()
			p.tables++
			if _, rc := p.table(r.Name()); p.why(rc) == "" {
				p.runs[r.Name()] = rc
			}
			_, rc := p.table(r.Name())
			p.h.Verdict(xds.Ack{
				Proxy: xds.Proxy{Scope: sharedScope}, ID: xds.ID{TypeURL: xds.TypeRoute, Name: r.Name()},
				Version: r.Version(), Error: p.why(rc),
			})
			p.h.Acknowledged(sharedScope.Key(xds.TypeRoute, r.Name()))
			p.seen(r.Name())
		}
		p.h.process()
	}
}

// serves are the routes that they run and that come of rules, by the header that each sets or the status that it
// answers.
func (p *proxies) serves() (out []string) {
	for _, r := range p.runs[sharedTable].GetVirtualHosts()[0].GetRoutes() {
		if strings.HasPrefix(r.GetName(), "ambiguous/") {
			continue
		}
		what := fmt.Sprint(r.GetDirectResponse().GetStatus())
		for _, h := range r.GetRequestHeadersToAdd() {
			what = h.GetHeader().GetValue()
		}
		out = append(out, r.GetName()+" "+what)
	}
	return out
}

func conditionsOf(r *ingest.Report) []metav1.Condition { return r.Parents[0].Conditions }

// action rejects what a header says, match what an expression says. Nobody has foreseen either.
func action(rc *routev3.RouteConfiguration) string {
	for _, r := range rc.GetVirtualHosts()[0].GetRoutes() {
		for _, h := range r.GetRequestHeadersToAdd() {
			if strings.HasPrefix(h.GetHeader().GetValue(), "bad") {
				return "unheard-of header"
			}
		}
	}
	return ""
}

func match(rc *routev3.RouteConfiguration) string {
	for _, r := range rc.GetVirtualHosts()[0].GetRoutes() {
		if strings.HasPrefix(r.GetMatch().GetSafeRegex().GetRegex(), "/bad") {
			return "unheard-of expression"
		}
	}
	return ""
}

// TestARejectedRuleCostsItsAuthorOnly, whatever it is rejected for: the owner's edits go on, also after a restart of
// every proxy and of the operator.
func TestARejectedRuleCostsItsAuthorOnly(t *testing.T) {
	for name, c := range map[string]struct {
		why func(*routev3.RouteConfiguration) string
		bad *gwv1.HTTPRoute
		// left of the bad route in the table.
		left []string
		text string
	}{
		"for what it does": {
			action, routeOf("tenant", "bad", 1, "bad", "/x"),
			[]string{"HTTPRoute/tenant/bad/0 500"},
			"unheard-of header",
		},
		"for its match": {
			match, routeOf("tenant", "bad", 1, "tenant", "/bad/guarded", "/.*"),
			[]string{"HTTPRoute/tenant/bad/1 500"},
			"unheard-of expression",
		},
	} {
		t.Run(name, func(t *testing.T) {
			owner := func(generation int64, header string) *gwv1.HTTPRoute {
				return routeOf("bookshop", "reviews", generation, header, "/owner")
			}
			good := routeOf("tenant", "good", 1, "good", "/good", "/better")
			want := func(header string) []string {
				return slices.Concat([]string{"HTTPRoute/tenant/good/1 good", "HTTPRoute/tenant/good/0 good"}, c.left,
					[]string{"unmatched/tenant 404", "HTTPRoute/bookshop/reviews/0 " + header})
			}
			objects := func(more ...client.Object) []client.Object { return sharedCluster(t, append(more, good)...) }
			check := func(p *proxies, header string) {
				t.Helper()
				require.ElementsMatch(t, want(header), p.serves())
				for ref, r := range p.h.reports {
					accepted := meta.FindStatusCondition(conditionsOf(r), "Accepted")
					if ref.Name != c.bad.Name {
						require.Equal(t, metav1.ConditionTrue, accepted.Status, ref)
						continue
					}
					require.Equal(t, metav1.ConditionFalse, accepted.Status)
					require.Equal(t, "ProxyRejected", accepted.Reason)
					require.Contains(t, accepted.Message, c.text)
					require.Equal(t, "ProxyRejected", r.Parents[0].Unprogrammed.Reason)
				}
			}
			p := startProxies(t, c.why, objects(owner(1, "one"))...)
			p.change(c.bad)
			p.settle()
			check(p, "one")
			p.change(owner(2, "two"))
			p.settle()
			check(p, "two")
			require.Empty(t, p.h.isolations)
			require.Empty(t, p.h.resources.trials)

			p = startProxies(t, c.why, objects(owner(2, "two"), c.bad)...)
			check(p, "two")
			p.change(owner(3, "three"))
			p.settle()
			check(p, "three")
			require.Less(t, p.tables, 40, "it was found by trial, not by trying everything")

			mended := routeOf("tenant", "bad", 2, "mended", "/x")
			p.change(mended)
			p.settle()
			require.Contains(t, p.serves(), "HTTPRoute/tenant/bad/0 mended")
		})
	}
}

// TestWhatOtherReplicasFound is taken over without a proxy to ask, and leads to the same tables.
func TestWhatOtherReplicasFound(t *testing.T) {
	objects := sharedCluster(t, routeOf("tenant", "bad", 1, "bad", "/x"))
	p := startProxies(t, action, objects...)
	found := []ingest.Rejection{}
	p.h.opts.OnRejection = func(r ingest.Rejection) { found = append(found, r) }
	p.change(routeOf("tenant", "worse", 1, "bad too", "/y"))
	p.settle()
	require.Len(t, found, 1)

	other := newHarness(t)
	for _, o := range append(objects, routeOf("tenant", "worse", 1, "bad too", "/y")) {
		other.Set(o)
	}
	other.Synced()
	other.subscribe(sharedScope)
	require.Len(t, p.h.ingest.Rejected.All(), 2)
	for _, r := range p.h.ingest.Rejected.All() {
		other.Reject(r)
	}
	other.process()
	mine, _ := p.h.cache.Get(sharedScope.Key(xds.TypeRoute, sharedTable))
	theirs, _ := other.cache.Get(sharedScope.Key(xds.TypeRoute, sharedTable))
	require.Equal(t, mine.Version(), theirs.Version())
}

// TestEveryRuleCanBeLeftOut: what a table has of a rule changes when the rule is rejected, for whatever route there is.
func TestEveryRuleCanBeLeftOut(t *testing.T) {
	h := newHarness(t)
	for _, o := range objectPool(t) {
		h.Set(o)
	}
	h.Synced()
	h.process()
	require.NotEmpty(t, h.reports)
	for ref := range h.reports {
		if h.ingest.Route.Get(nil, ref) == nil {
			continue // a policy
		}
		for tries := 0; ; tries++ {
			rules := h.ingest.Route.Get(nil, ref).Rules
			if len(rules) == 0 {
				break
			}
			require.Less(t, tries, 100, ref)
			h.Reject(ingest.Rejection{Route: ref, Rule: ingest.RuleKey(rules[0]), Text: "no"})
			h.process()
			for _, left := range h.ingest.Route.Get(nil, ref).Rules {
				require.NotEqual(t, ingest.RuleKey(rules[0]), ingest.RuleKey(left), ref)
			}
		}
	}
}

// TestFasterThanTrials: a tenant who edits a bad rule before each verdict keeps nobody else's edits from being served.
func TestFasterThanTrials(t *testing.T) {
	p := startProxies(t, action, sharedCluster(t, routeOf("bookshop", "reviews", 10, "first", "/owner"))...)
	edits := int64(0)
	served := func() bool { return slices.Contains(p.serves(), "HTTPRoute/bookshop/reviews/0 second") }
	p.seen = func(string) {
		if !served() && edits < 10*maxShown {
			edits++
			p.change(routeOf("tenant", "bad", edits, fmt.Sprint("bad ", edits), "/x"))
		}
	}
	p.change(routeOf("tenant", "bad", 0, "bad", "/x"), routeOf("bookshop", "reviews", 11, "second", "/owner"))
	p.settle()
	require.True(t, served())
	require.Less(t, edits, int64(2*maxShown))
	require.Empty(t, p.h.resources.closed)
	require.Contains(t, p.serves(), "HTTPRoute/tenant/bad/0 500", "it is found once it stands still")
}

// TestAFalseVerdictIsMadeGood: a trial that is accepted though it must not be costs some more trials.
func TestAFalseVerdictIsMadeGood(t *testing.T) {
	blind := 3
	p := startProxies(t, action, sharedCluster(t, routeOf("tenant", "good", 1, "good", "/good"))...)
	p.why = func(rc *routev3.RouteConfiguration) string {
		if rc.GetName() == names.RouteTrial && blind > 0 {
			return ""
		}
		return action(rc)
	}
	p.change(routeOf("tenant", "bad", 1, "bad", "/x"))
	p.h.process()
	p.seen = func(name string) {
		if name == names.RouteTrial {
			blind--
		}
	}
	p.settle()
	require.LessOrEqual(t, blind, 0)
	require.Contains(t, p.serves(), "HTTPRoute/tenant/bad/0 500")
	require.Contains(t, p.serves(), "HTTPRoute/tenant/good/0 good")
}

// TestNoRuleIsToBlame: what is rejected without any rule as well is left as it is, and the operator goes on.
func TestNoRuleIsToBlame(t *testing.T) {
	p := startProxies(t, func(*routev3.RouteConfiguration) string { return "not today" }, sharedCluster(t)...)
	require.Empty(t, p.h.isolations)
	require.Less(t, p.tables, 10)
	for _, r := range p.h.reports {
		require.True(t, meta.IsStatusConditionTrue(conditionsOf(r), "Accepted"))
	}
}

// TestEnvoyRejects is the same with a real Envoy that takes smaller expressions than the operator believes.
func TestEnvoyRejects(t *testing.T) {
	xdstest.Binary(t)
	bad := routeOf("tenant", "bad", 1, "bad", "/[a-z0-9-]{1,63}/x", "/fine")
	for round := range 2 { // the second one starts with everything anew
		s := startServer(t, sharedCluster(t, bad, routeOf("tenant", "good", 1, "good", "/good"))...)
		e := xdstest.Start(t, xdstest.Options{XDSSocket: s.socket, Wildcards: true, Internal: true, Isolated: true})
		serves := func(header string) func() bool {
			return func() bool {
				st := s.server.State(sharedScope.Key(xds.TypeRoute, sharedTable))
				if len(st.Proxies) != 1 || st.Proxies[0].State != xds.Acked {
					return false
				}
				dump, err := e.Get("/config_dump?resource=dynamic_route_configs")
				return err == nil && strings.Contains(dump, `"`+header+`"`) && strings.Contains(dump, "HTTPRoute/tenant/good/0") &&
					!strings.Contains(dump, "{1,63}")
			}
		}
		for n, header := range []string{"first", "second"} {
			s.Set(routeOf("bookshop", "reviews", int64(10+n), header, "/owner"))
			e.Eventually(header, serves(header))
		}
		require.NoError(t, s.Inspect(t.Context(), func(*ingest.Ingest) {
			c := conditionsOf(s.reports[model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "tenant", Name: "bad"}])
			accepted := meta.FindStatusCondition(c, "Accepted")
			require.Equal(t, "ProxyRejected", accepted.Reason, "round %d: %v", round, c)
			require.Contains(t, accepted.Message, "program size")
		}))
		e.Stop()
	}
}

// serving is an engine with a server on a socket.
type serving struct {
	*harness
	server *xds.Server
	socket string
}

func startServer(t *testing.T, objects ...client.Object) *serving {
	s := &serving{harness: newHarness(t)}
	s.server = xds.NewServer(xds.Options{
		Cache: s.cache, OnInterest: s.Interest, OnAck: s.Verdict,
		Authenticator: xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
			return xds.Proxy{Scope: sharedScope, Pod: "bookshop/envoy"}, nil
		}),
	})
	s.opts.Acks = s.server
	t.Cleanup(s.server.OnChange(s.Acknowledged))

	dir, err := os.MkdirTemp("", "xds") // the path of a Unix socket must be short
	require.NoError(t, err)
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	s.socket = filepath.Join(dir, "xds.sock")
	l, err := net.Listen("unix", s.socket)
	require.NoError(t, err)
	g := grpc.NewServer(xds.GRPCOptions(0)...)
	s.server.Register(g)
	go func() { _ = g.Serve(l) }()
	t.Cleanup(g.Stop)
	for _, o := range objects {
		s.Set(o)
	}
	s.Synced()
	ended := make(chan struct{})
	ctx, cancel := context.WithCancel(t.Context())
	go func() { defer close(ended); _ = s.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-ended })
	return s
}
