// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

// asking is a request as the policies of this test see it.
type asking struct {
	id, method, path, host string
	tenant                 []string // values of a header
}

// fact is a condition, as a policy has it and as what it means.
type fact struct {
	in    func(*model.AccessRequest)
	holds func(a asking, deny bool) bool
}

var facts = []fact{
	{
		func(r *model.AccessRequest) { r.Methods = []string{"GET", "HEAD"} },
		func(a asking, _ bool) bool { return a.method == "GET" || a.method == "HEAD" },
	},
	{
		func(r *model.AccessRequest) { r.Methods = []string{"POST"} },
		func(a asking, _ bool) bool { return a.method == "POST" },
	},
	{
		func(r *model.AccessRequest) { r.Paths = pathIs(model.MatchPrefix, "/a").Paths },
		func(a asking, _ bool) bool { return a.path == "/a" || strings.HasPrefix(a.path, "/a/") },
	},
	{
		func(r *model.AccessRequest) { r.Paths = pathIs(model.MatchExact, "/b").Paths },
		// A rule that denies takes what a server may cut off for nothing.
		func(a asking, deny bool) bool { return a.path == "/b" || deny && a.path == "/b/" },
	},
	{
		func(r *model.AccessRequest) { r.Paths = pathIs(model.MatchRegex, "/c[0-9]*").Paths },
		func(a asking, _ bool) bool { return a.path == "/c" || a.path == "/c12" },
	},
	{
		func(r *model.AccessRequest) { r.GRPC = []model.AccessGRPC{{Service: "d.E", Method: "F"}} },
		func(a asking, _ bool) bool { return a.path == "/d.E/F" },
	},
	{
		func(r *model.AccessRequest) { r.Hosts = []string{"web"} },
		func(a asking, _ bool) bool { return a.host == "web" || a.host == "WEB:80" },
	},
	{
		func(r *model.AccessRequest) { r.Hosts = []string{"*.example.org"} },
		func(a asking, _ bool) bool { return a.host == "a.example.org" },
	},
	{
		func(r *model.AccessRequest) { r.Headers = []model.AccessHeader{{Name: "X-Tenant"}} },
		func(a asking, _ bool) bool { return len(a.tenant) > 0 },
	},
	{
		func(r *model.AccessRequest) {
			r.Headers = []model.AccessHeader{{Name: "x-tenant", Value: &model.StringMatch{Type: model.MatchExact, Value: "t1"}}}
		},
		func(a asking, deny bool) bool {
			all := strings.Split(strings.Join(a.tenant, ","), ",")
			if deny {
				return slices.Contains(all, "t1")
			}
			return !slices.ContainsFunc(all, func(v string) bool { return v != "t1" })
		},
	},
	{
		func(r *model.AccessRequest) { *r = model.AccessRequest{CEL: "request.headers['x-tenant'] == 't2'"} },
		func(a asking, _ bool) bool { return len(a.tenant) == 1 && a.tenant[0] == "t2" },
	},
	{
		func(r *model.AccessRequest) {
			*r = model.AccessRequest{CEL: "request.method == 'GET' || request.nothing.at == 1"}
		},
		func(a asking, _ bool) bool { return a.method == "GET" },
	},
}

// random makes policies of facts, and keeps what they mean.
type random struct {
	*rand.Rand
}

func (r random) rule(index int, requests, deny bool) (model.AccessRule, func(asking) bool) {
	out := model.AccessRule{Index: index}
	var all []func(asking) bool
	switch r.IntN(4) {
	case 0:
		out.Sources = []model.AccessSource{{Identity: clientID}}
		all = append(all, func(a asking) bool { return a.id == clientID })
	case 1:
		out.Sources = []model.AccessSource{
			{Identity: "spiffe://cluster.local/ns/other/sa/", Prefix: true}, {Identity: "spiffe://cluster.local/ns/x/sa/y"},
		}
		all = append(all, func(a asking) bool { return a.id == otherID })
	}
	for n := r.IntN(4); requests && n > 0; n-- {
		f := facts[r.IntN(len(facts))]
		var alone model.AccessRequest
		f.in(&alone)
		if out.Request == nil {
			out.Request = &model.AccessRequest{}
		} else if overlaps(*out.Request, alone) {
			continue
		}
		f.in(out.Request)
		all = append(all, func(a asking) bool { return f.holds(a, deny) })
	}
	return out, func(a asking) bool {
		return !slices.ContainsFunc(all, func(holds func(asking) bool) bool { return !holds(a) })
	}
}

// overlaps: both say something in a field, or one is an expression, which stands alone.
func overlaps(a, b model.AccessRequest) bool {
	return a.CEL+b.CEL != "" || len(a.Methods)*len(b.Methods)+len(a.Paths)*len(b.Paths)+len(a.Hosts)*len(b.Hosts)+
		len(a.Headers)*len(b.Headers) > 0
}

// level of a guard, and whom it lets in.
func (r random) level(name string, requests, closed bool) ([]model.AccessPolicy, func(asking) bool) {
	var policies []model.AccessPolicy
	var denies, allows []func(asking) bool
	for n := range r.IntN(4) {
		p := accessPolicy(fmt.Sprint(name, n), r.IntN(2) == 0)
		p.DryRun = r.IntN(5) == 0
		for index := range r.IntN(3) {
			rule, matches := r.rule(index, requests, p.Deny)
			p.Rules = append(p.Rules, rule)
			switch {
			case p.DryRun:
			case p.Deny:
				denies = append(denies, matches)
			default:
				allows = append(allows, matches)
			}
		}
		closed = closed || !p.Deny && !p.DryRun
		policies = append(policies, p)
	}
	return policies, func(a asking) bool {
		matches := func(m func(asking) bool) bool { return m(a) }
		return !slices.ContainsFunc(denies, matches) && (!closed || slices.ContainsFunc(allows, matches))
	}
}

func (r random) guards() ([]model.Guard, func(asking) bool) {
	var out []model.Guard
	var all []func(asking) bool
	for range 1 + r.IntN(2) {
		g := model.Guard{DefaultDeny: r.IntN(6) == 0}
		var network, application func(asking) bool
		g.Network, network = r.level("n", false, g.DefaultDeny)
		g.Application, application = r.level("a", true, false)
		out, all = append(out, g), append(all, network, application)
	}
	return out, func(a asking) bool {
		return !slices.ContainsFunc(all, func(letsIn func(asking) bool) bool { return !letsIn(a) })
	}
}

func (r random) asking() asking {
	pick := func(of ...string) string { return of[r.IntN(len(of))] }
	a := asking{
		id: pick(clientID, otherID), method: pick("GET", "GET", "POST", "PUT"),
		path: pick("/", "/a", "/a/b", "/ab", "/b", "/b/", "/c", "/c12", "/cx", "/d.E/F", "/d.E/G"),
		host: pick("web", "WEB:80", "other", "a.example.org", "example.org"),
	}
	for range r.IntN(3) {
		a.tenant = append(a.tenant, pick("t1", "t1", "t2", "t1,t2", "t1,t1"))
	}
	return a
}

// TestRandomGuards compares what Envoy decides with what the policies mean.
func TestRandomGuards(t *testing.T) {
	s := newShop(t)
	r := random{rand.New(rand.NewPCG(7, 11))}
	dialled := s.guard(nil)
	clients := map[string]*http.Client{}
	for _, id := range []string{clientID, otherID} {
		clients[id] = s.caller(id).client(t, dialled, h2cOnly())
	}
	count := map[bool]int{}
	for range 100 {
		guards, letsIn := r.guards()
		s.guard(guards)
		for range 40 {
			a := r.asking()
			headers := []string{"Host", a.host}
			for _, v := range a.tenant {
				headers = append(headers, "x-tenant", v)
			}
			got, want := do(t, clients[a.id], a.method, "http://web"+a.path, headers...).status, http.StatusForbidden
			if letsIn(a) {
				want = http.StatusOK
			}
			count[want == http.StatusOK]++
			if got != want {
				t.Fatalf("%+v: %d, not %d, with %+v", a, got, want, guards)
			}
		}
	}
	t.Log(count)
	if count[true] < 500 || count[false] < 500 {
		t.Errorf("too few of a kind: %v", count)
	}
}
