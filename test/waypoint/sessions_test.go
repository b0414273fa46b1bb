// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"encoding/base64"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// manySessions is how often a session is asked for: where it isn't kept, some request of these goes elsewhere.
const manySessions = 24

// sessionsOf two backends, each with two endpoints that are named after it.
type sessionsOf struct {
	*shop
	c       *http.Client
	v1, v1b model.Endpoint
}

func newSessions(t *testing.T) *sessionsOf {
	s := &sessionsOf{shop: newShop(t)}
	pod := func(name string) model.Endpoint {
		e, _ := s.pod(appID, &echo{Name: name})
		return e
	}
	s.v1, s.v1b = pod("v1"), pod("v1-b")
	s.endpoints(webV1, s.v1, s.v1b)
	s.endpoints(webV2, pod("v2"), pod("v2-b"))
	s.endpoints(web, pod("web"), pod("web-b"))
	s.c = s.caller(clientID).client(t, s.serve(web, true, nil), nil)
	return s
}

// keeps asks until a session is there, which the answer must say, and then with what it said.
func (s *sessionsOf) keeps(t *testing.T, path string, want ...string) (cookie string) {
	t.Helper()
	var first reply
	eventually.True(t, "a session", func() bool {
		first = do(t, s.c, http.MethodGet, "http://web"+path)
		cookie = cookies(first.header)
		return cookie != ""
	})
	if len(want) > 0 {
		require.Contains(t, want, first.Name)
	}
	for range manySessions {
		again := do(t, s.c, http.MethodGet, "http://web"+path, "Cookie", cookie)
		require.Equal(t, first.Name, again.Name)
	}
	return cookie
}

// cookies that a client would bring back.
func cookies(h http.Header) string {
	var out []string
	for _, c := range (&http.Response{Header: h}).Cookies() {
		out = append(out, c.Name+"="+c.Value)
	}
	return strings.Join(out, "; ")
}

// reached are the endpoints that requests with these headers go to.
func (s *sessionsOf) reached(t *testing.T, path string, header ...string) (out []string) {
	t.Helper()
	for range manySessions {
		r := do(t, s.c, http.MethodGet, "http://web"+path, header...)
		require.Equal(t, http.StatusOK, r.status)
		if !slices.Contains(out, r.Name) {
			out = append(out, r.Name)
		}
	}
	slices.Sort(out)
	return out
}

// TestSessionsWithBackends: sessions that the owner of a Service has for it are kept without a route, by a rule, and by
// one of several backends; a rule's own go before them.
func TestSessionsWithBackends(t *testing.T) {
	s := newSessions(t)
	owned := func(p model.ServicePort, of model.SessionPersistence) model.Backend {
		b := to(p, 1)
		b.Session = &of
		return b
	}
	require.Len(t, s.reached(t, "/"), 2)
	s.doesWith(model.RouteTable{Session: &model.SessionPersistence{}})
	s.keeps(t, "/", "web", "web-b")

	own := rule(below("/own"), nil, owned(webV1, model.SessionPersistence{Name: "owners"}))
	own.SessionPersistence = &model.SessionPersistence{Name: "own", CookieLifetime: time.Hour}
	s.doesWith(model.RouteTable{Default: pointers([]model.Rule{
		own,
		rule(below("/one"), nil, owned(webV1, model.SessionPersistence{Name: "owners"})),
		rule(below("/split"), nil, owned(webV1, model.SessionPersistence{}), owned(webV2, model.SessionPersistence{})),
		rule(below("/half"), nil, owned(webV1, model.SessionPersistence{Header: true, Name: "x-s"}), to(webV2, 1)),
		rule(below("/none"), nil, to(webV1, 1)),
	})})
	require.Contains(t, s.keeps(t, "/one", "v1", "v1-b"), "owners=")
	require.Contains(t, s.keeps(t, "/own", "v1", "v1-b"), "own=")
	require.Empty(t, cookies(do(t, s.c, http.MethodGet, "http://web/none").header))
	// Each backend of a split has its own session, and the split is by weight.
	var both []string
	eventually.True(t, "a session with both", func() bool {
		r := do(t, s.c, http.MethodGet, "http://web/split")
		if c := cookies(r.header); c != "" && !slices.ContainsFunc(both, func(have string) bool {
			return strings.HasPrefix(have, c[:strings.IndexByte(c, '=')])
		}) {
			both = append(both, c)
		}
		return len(both) == 2
	})
	require.Len(t, s.reached(t, "/split", "Cookie", strings.Join(both, "; ")), 2, "one endpoint of each")
	for r := do(t, s.c, http.MethodGet, "http://web/half"); ; r = do(t, s.c, http.MethodGet, "http://web/half") {
		if said := r.header.Get("X-S"); said != "" {
			kept := s.reached(t, "/half", "X-S", said)
			require.Len(t, slices.DeleteFunc(kept, func(n string) bool { return strings.HasPrefix(n, "v2") }), 1)
			break
		}
	}
}

// TestSessionsOfASplit stay with the backend, whatever becomes of the weights, and are scoped to their rule.
func TestSessionsOfASplit(t *testing.T) {
	s := newSessions(t)
	split := func(v1, v2 uint32) {
		r := rule(below("/split"), nil, to(webV1, v1), to(webV2, v2))
		r.SessionPersistence = &model.SessionPersistence{}
		other := rule(below("/other"), nil, to(webV1, 1), to(webV2, 1))
		other.RuleIndex, other.SessionPersistence = 1, &model.SessionPersistence{CookieLifetime: time.Hour}
		s.doesWith(model.RouteTable{Default: pointers([]model.Rule{r, other})})
	}
	split(1, 0)
	s.keeps(t, "/split", "v1", "v1-b")
	split(1, 1)
	cookie := s.keeps(t, "/split")
	require.Len(t, strings.Split(cookie, "; "), 2, "the endpoint and the backend")
	name := do(t, s.c, http.MethodGet, "http://web/split", "Cookie", cookie).Name
	for _, weights := range [][2]uint32{{1, 1000}, {1000, 1}} {
		split(weights[0], weights[1])
		require.Equal(t, []string{name}, s.reached(t, "/split", "Cookie", cookie))
	}
	split(500, 500)
	require.Greater(t, len(s.reached(t, "/other", "Cookie", cookie)), 1, "another rule has its own")
	kept := do(t, s.c, http.MethodGet, "http://web/other")
	require.Len(t, kept.header.Values("Set-Cookie"), 2)
	for _, c := range kept.header.Values("Set-Cookie") {
		require.Contains(t, c, "Max-Age=3600")
		require.Contains(t, c, "Path=/other")
	}
	// Where the backend takes no more, the session moves.
	if strings.HasPrefix(name, "v1") {
		split(0, 1)
	} else {
		split(1, 0)
	}
	eventually.True(t, "the other backend", func() bool {
		return do(t, s.c, http.MethodGet, "http://web/split", "Cookie", cookie).Name[:2] != name[:2]
	})
}

// TestASessionLeadsToEndpointsOfItsBackendOnly: whatever a caller says, it reaches nothing that it wouldn't without.
func TestASessionLeadsToEndpointsOfItsBackendOnly(t *testing.T) {
	s := newSessions(t)
	outside := &echo{Name: "outside"}
	at := s.app(outside)
	r := rule(below("/"), nil, to(webV1, 1))
	r.SessionPersistence = &model.SessionPersistence{Name: "sid"}
	byHeader := rule(below("/header"), nil, to(webV1, 1))
	byHeader.SessionPersistence = &model.SessionPersistence{Name: "x-sid", Header: true}
	s.doesWith(model.RouteTable{Default: pointers([]model.Rule{byHeader, r})})
	kept := s.keeps(t, "/", "v1", "v1-b")

	forged := func(address string) string {
		return base64.StdEncoding.EncodeToString(protowire.AppendString(protowire.AppendTag(nil, 1, protowire.BytesType),
			address))
	}
	own := s.v1.Address.Addr().String() + ":15008"
	require.Equal(t, []string{"v1"}, s.reached(t, "/", "Cookie", "sid="+forged(own)), "it is how Envoy says it")
	for _, address := range []string{
		at.String(), s.v1.Address.String(), s.waypoint.String() + ":15008", "x", "", "/tmp/x",
	} {
		require.Subset(t, []string{"v1", "v1-b"}, s.reached(t, "/", "Cookie", "sid="+forged(address)), address)
		require.Subset(t, []string{"v1", "v1-b"},
			s.reached(t, "/header", "X-Sid", base64.StdEncoding.EncodeToString([]byte(address))), address)
	}
	require.Subset(t, []string{"v1", "v1-b"}, s.reached(t, "/", "Cookie", "sid=%%%"))
	require.Zero(t, outside.Requests.Load())

	// A session with an endpoint that is gone moves, and says where to.
	name := do(t, s.c, http.MethodGet, "http://web/", "Cookie", kept).Name
	left, want := s.v1, "v1"
	if name == "v1" {
		left, want = s.v1b, "v1-b"
	}
	s.endpoints(webV1, left)
	eventually.True(t, "the other endpoint", func() bool {
		moved := do(t, s.c, http.MethodGet, "http://web/", "Cookie", kept)
		return moved.Name == want && cookies(moved.header) != "" && cookies(moved.header) != kept
	})
}
