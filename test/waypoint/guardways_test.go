// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// TestNoWayAroundGuards has a request that is refused on every way that one can leave by: nobody gets it.
func TestNoWayAroundGuards(t *testing.T) {
	s := newShop(t)
	mirrored := filters(model.Filter{Mirror: &model.Mirror{Backend: to(webV2, 1)}})
	session := func(r model.Rule) model.Rule {
		r.SessionPersistence = &model.SessionPersistence{Name: "s"}
		return r
	}
	retried := rule(below("/retry"), nil, to(webV1, 1))
	retried.Retry = &model.Retry{Attempts: 3, Codes: []uint32{403, 503}}
	rules := []model.Rule{
		rule(below("/one"), nil, to(webV1, 1)),
		rule(below("/two"), nil, to(webV1, 1), to(webV2, 1)),
		rule(below("/mirror"), mirrored, to(webV1, 1)),
		rule(below("/mirrors"), mirrored, to(webV1, 1), to(webV2, 1)),
		rule(below("/rewritten"), append(rewrite(model.Rewrite{Path: prefix("/hidden")}), mirrored...), to(webV1, 1)),
		session(rule(below("/session"), nil, to(webV1, 1))),
		session(rule(below("/sessions"), nil, to(webV1, 1), to(webV2, 1))),
		retried,
	}
	dialled := s.guard(append(onConnections(accessPolicy("a", false, fromAccount(clientID, nil))),
		onRequests(accessPolicy("d", true, fromAccount("", pathIs(model.MatchPrefix, "/hidden"))))...), rules...)
	body := strings.Repeat("x", 50_000)
	paths := []string{"/one", "/two", "/mirror", "/mirrors", "/session", "/sessions", "/retry"}
	for name, protocols := range map[string]*http.Protocols{"HTTP/1.1": nil, "h2c": h2cOnly()} {
		t.Run(name, func(t *testing.T) {
			refused, client := s.caller(otherID).client(t, dialled, protocols), s.caller(clientID).client(t, dialled, protocols)
			for range 10 {
				for _, path := range append(paths, "/rewritten") {
					require.Equal(t, http.StatusForbidden, do(t, refused, "GET", "http://web"+path).status, path)
					resp, err := refused.Post("http://web"+path, "text/plain", io.NopCloser(strings.NewReader(body)))
					require.NoError(t, err, path)
					_, _ = io.Copy(io.Discard, resp.Body)
					_ = resp.Body.Close()
					require.Equal(t, http.StatusForbidden, resp.StatusCode, path)
				}
				require.Equal(t, http.StatusForbidden, do(t, client, "GET", "http://web/rewritten").status)
			}
			require.Zero(t, s.v1.Requests.Load()+s.v2.Requests.Load(), "somebody got a request")
			for _, path := range paths {
				require.Equal(t, http.StatusOK, do(t, client, "GET", "http://web"+path).status, path)
			}
			// One of a mirror's is a copy.
			eventually.True(t, "the copies", func() bool {
				return s.v1.Requests.Load()+s.v2.Requests.Load() == int64(len(paths)+2)
			})
			s.v1.Requests.Store(0)
			s.v2.Requests.Store(0)
		})
	}
}

// TestGuardsOfOffers: a request that would become a websocket is decided on like any other.
func TestGuardsOfOffers(t *testing.T) {
	s := newShop(t)
	dialled := s.guard(onConnections(accessPolicy("a", false, fromAccount(clientID, nil))))
	for id, want := range map[string]int{clientID: http.StatusOK, otherID: http.StatusForbidden} {
		before := s.v1.Requests.Load() + s.v2.Requests.Load()
		c, in := raw(t, s.caller(id), dialled)
		_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"+
			"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n")
		status, err := readStatus(in)
		require.NoError(t, err)
		require.Equal(t, want, status)
		if want == http.StatusForbidden {
			require.Equal(t, before, s.v1.Requests.Load()+s.v2.Requests.Load())
		}
	}
}

// TestGuardsOutliveHTTP: a port becomes TCP, and requests on connections from before are decided on like ever.
func TestGuardsOutliveHTTP(t *testing.T) {
	s := newShop(t)
	dialled := s.guard(nil)
	client := s.caller(otherID).client(t, dialled, nil)
	require.Equal(t, http.StatusOK, do(t, client, "GET", "http://web/").status)
	before := s.v1.Requests.Load() + s.v2.Requests.Load()
	u := s.tableOf(model.RouteTable{
		Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolTCP,
		Guards: onConnections(accessPolicy("a", false, fromAccount(clientID, nil))),
	})
	inbound := resource(t, names.InboundCluster(web.Namespace, web.Service, web.Port),
		upstream.Inbound(s.upstreams[web], waypointID, headers))
	s.apply(inbound, u)
	s.acknowledged(inbound, u)
	require.Equal(t, http.StatusForbidden, do(t, client, "GET", "http://web/").status)
	require.Equal(t, before, s.v1.Requests.Load()+s.v2.Requests.Load())
}
