// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

var otherID = names.SPIFFEID(trustDomain, "other", "client")

// accessPolicy is a policy of these tests.
func accessPolicy(name string, deny bool, rules ...model.AccessRule) model.AccessPolicy {
	for n := range rules {
		rules[n].Index = n
	}
	return model.AccessPolicy{Name: types.NamespacedName{Namespace: "shop", Name: name}, Deny: deny, Rules: rules}
}

func onRequests(p ...model.AccessPolicy) []model.Guard { return []model.Guard{{Application: p}} }

func onConnections(p ...model.AccessPolicy) []model.Guard { return []model.Guard{{Network: p}} }

// fromAccount is a rule for an identity; without one, for everybody.
func fromAccount(id string, r *model.AccessRequest) model.AccessRule {
	out := model.AccessRule{Request: r}
	if id != "" {
		out.Sources = []model.AccessSource{{Identity: id}}
	}
	return out
}

func pathIs(kind model.MatchType, value string) *model.AccessRequest {
	return &model.AccessRequest{Paths: []model.StringMatch{{Type: kind, Value: value}}}
}

// guard puts guards before everything that the shop's web serves.
func (s *shop) guard(guards []model.Guard, rules ...model.Rule) string {
	s.t.Helper()
	for n := range rules {
		for b := range rules[n].Backends {
			rules[n].Backends[b].Guards = guards
		}
	}
	table := &model.RouteTable{Attachment: model.Attachment{Port: web}, Default: pointers(rules), Guards: guards}
	if len(s.ports) == 0 {
		return s.serve(web, true, table)
	}
	table.Protocol = model.ProtocolHTTP
	u := s.tableOf(*table)
	s.apply(u)
	s.acknowledged(u)
	return names.ServerName(web.Namespace, web.Service, web.Port)
}

// TestGuards: who may ask for what, by all that a rule can say.
func TestGuards(t *testing.T) {
	s := newShop(t)
	get := &model.AccessRequest{Methods: []string{"GET"}}
	admin := "/admin"
	toAdmin := rule(below("/hidden"), filters(model.Filter{Rewrite: &model.Rewrite{
		Path: &model.PathChange{Full: &admin},
	}}), to(webV1, 1))
	all := rule(below("/"), nil, to(webV1, 50), to(webV2, 50))
	for _, tc := range []struct {
		name   string
		guards []model.Guard
		rules  []model.Rule
		// who asks for what, and what comes of it.
		asks map[string]int
	}{
		{"no policy", nil, nil, map[string]int{"client GET /": 200, "other GET /": 200}},
		{
			"default deny", onConnections(accessPolicy("nobody", false)), nil,
			map[string]int{"client GET /": 403, "other GET /": 403},
		},
		{
			"an account", onConnections(accessPolicy("a", false, fromAccount(clientID, nil))), nil,
			map[string]int{"client GET /": 200, "other GET /": 403},
		},
		{"a namespace", onConnections(accessPolicy("a", false, model.AccessRule{
			Sources: []model.AccessSource{{Identity: "spiffe://cluster.local/ns/front/sa/", Prefix: true}},
		})), nil, map[string]int{"client GET /": 200, "other GET /": 403}},
		{"the mesh", []model.Guard{{DefaultDeny: true}}, nil, map[string]int{"client GET /": 403}},
		{"deny goes first", onConnections(
			accessPolicy("a", false, fromAccount("", nil)), accessPolicy("d", true, fromAccount(otherID, nil)),
		), nil, map[string]int{"client GET /": 200, "other GET /": 403}},
		{"both levels", []model.Guard{{
			Network:     []model.AccessPolicy{accessPolicy("a", false, fromAccount(clientID, nil))},
			Application: []model.AccessPolicy{accessPolicy("b", false, fromAccount("", get))},
		}}, nil, map[string]int{"client GET /": 200, "client POST /": 403, "other GET /": 403}},
		{
			"every guard", append(onRequests(accessPolicy("a", false, fromAccount("", get))),
				onRequests(accessPolicy("b", true, fromAccount("", pathIs(model.MatchExact, "/no"))))...), nil,
			map[string]int{"client GET /": 200, "client GET /no": 403, "client POST /": 403},
		},
		{"paths", onRequests(accessPolicy("a", false,
			fromAccount("", pathIs(model.MatchPrefix, "/a")), fromAccount("", pathIs(model.MatchExact, "/b")),
			fromAccount("", pathIs(model.MatchRegex, "/c[0-9]+")))), nil, map[string]int{
			"client GET /a": 200, "client GET /a/": 200, "client GET /a/b?c=d": 200, "client GET /ab": 403,
			"client GET /b?x": 200,
			"client GET /b/":  403, "client GET /c12": 200, "client GET /c": 403, "client GET /c1/": 403, "client GET /": 403,
		}},
		{"hosts", onRequests(accessPolicy("a", false, fromAccount("", &model.AccessRequest{
			Hosts: []string{"web", "*.example.org"},
		}))), nil, map[string]int{
			"client GET / host=web": 200, "client GET / host=WEB:80": 200, "client GET / host=web.": 200,
			"client GET / host=a.example.org": 200, "client GET / host=example.org": 403, "client GET / host=webx": 403,
		}},
		{"gRPC", onRequests(accessPolicy("a", false, fromAccount("", &model.AccessRequest{
			GRPC: []model.AccessGRPC{{Service: "a.B", Method: "C"}, {Service: "d.E"}},
		}))), nil, map[string]int{
			"client POST /a.B/C": 200, "client POST /a.B/D": 403, "client POST /d.E/F": 200, "client POST /d.EF/G": 403,
		}},
		{"CEL", onRequests(accessPolicy("a", false,
			fromAccount(clientID, &model.AccessRequest{CEL: "request.headers['x-a'] == 'b'"}),
			fromAccount("", pathIs(model.MatchExact, "/open")))), nil, map[string]int{
			"client GET / x-a=b": 200, "client GET /": 403, "other GET / x-a=b": 403, "other GET /open": 200,
		}},
		{"CEL that denies", onRequests(accessPolicy("d", true,
			fromAccount("", &model.AccessRequest{CEL: "request.headers['x-a'] == 'b'"}))), nil, map[string]int{
			"client GET / x-a=b": 403, "client GET /": 200,
		}},
		{
			"what a route makes of it", onRequests(accessPolicy("d", true, fromAccount("", pathIs(model.MatchExact, "/admin")))),
			[]model.Rule{toAdmin, all},
			map[string]int{"client GET /hidden": 403, "client GET /admin": 403, "client GET /x": 200},
		},
		{"a claim that nobody verified", onRequests(accessPolicy("a", false, fromAccount("", &model.AccessRequest{
			Claims: []model.AccessClaim{{Name: "sub", Values: []string{"a"}}},
		}))), nil, map[string]int{"client GET /": 403}},
	} {
		dialled := s.guard(tc.guards, tc.rules...)
		clients := map[string]*http.Client{}
		for name, id := range map[string]string{"client": clientID, "other": otherID} {
			clients[name] = s.caller(id).client(t, dialled, nil)
		}
		for ask, want := range tc.asks {
			if got := s.asked(clients, ask); got != want {
				t.Errorf("%s: %s: %d, not %d", tc.name, ask, got, want)
			}
		}
	}
}

// asked is the status of "WHO METHOD PATH [HEADER=VALUE]".
func (s *shop) asked(clients map[string]*http.Client, ask string) int {
	s.t.Helper()
	var who, method, path, header string
	if n, _ := fmt.Sscan(ask, &who, &method, &path, &header); n < 3 {
		s.t.Fatalf("%q", ask)
	}
	var headers []string
	if name, value, ok := strings.Cut(header, "="); ok {
		if name == "host" {
			name = "Host"
		}
		headers = []string{name, value}
	}
	return do(s.t.(*testing.T), clients[who], method, "http://web"+path, headers...).status
}
