// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

// TestWhoMayAnswer: the waypoint sends nothing to a pod with another identity than the endpoint's, be it of the same
// mesh.
func TestWhoMayAnswer(t *testing.T) {
	s := newShop(t)
	impostor := &echo{Name: "impostor"}
	e, p := s.pod("spiffe://cluster.local/ns/evil/sa/evil", impostor)
	e.Identity = appID
	s.backend(web, model.ProtocolHTTP, e)
	dialled := s.serve(web, true, nil)
	c := s.caller(clientID).client(t, dialled, nil)
	if r := do(t, c, "POST", "http://web/"); r.status != 503 || impostor.Requests.Load() != 0 || p.opened.Load() != 0 {
		t.Errorf("status %d, %d requests and %d connections arrived", r.status, impostor.Requests.Load(), p.opened.Load())
	}
	line := s.accessLog(map[string]any{"dialled": dialled, "status": 503})
	if failure, _ := line["failure"].(string); !strings.Contains(failure, "SAN") {
		t.Errorf("the log does not say why: %v", line)
	}
	t.Log(line)

	t.Run("the identity counts, not the address", func(t *testing.T) {
		right := e
		right.Identity = "spiffe://cluster.local/ns/evil/sa/evil"
		s.endpoints(web, right)
		eventually.True(s.t, "the pod to be reached as what it is", func() bool {
			return do(t, c, "GET", "http://web/").status == 200
		})
		// A connection that was good for one identity must not serve another.
		s.endpoints(web, e)
		eventually.True(s.t, "the pod to be refused again", func() bool {
			return do(t, c, "GET", "http://web/").status == 503
		})
		before := impostor.Requests.Load()
		for range 20 {
			do(t, c, "GET", "http://web/")
		}
		if n := impostor.Requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached it", n)
		}
	})
	t.Run("of many, any may answer", func(t *testing.T) {
		many := func(n int, namespace string) (out []string) {
			for i := range n {
				out = append(out, names.SPIFFEID(trustDomain, namespace, fmt.Sprint("account-", i)))
			}
			return out
		}
		for _, tc := range []struct {
			identities []string
			reached    bool
		}{
			{many(5, "evil"), false},
			{append(many(5, "evil"), "spiffe://cluster.local/ns/evil/sa/evil"), true},
			{many(20, "evi"), false},
			{many(20, "evil"), true},
		} {
			before := impostor.Requests.Load()
			s.upstream(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, Identities: tc.identities}, model.Endpoint{
				Address: e.Address, MTLS: true, Identity: tc.identities[0],
			})
			want := map[bool]int{false: 503, true: 200}[tc.reached]
			eventually.True(s.t, fmt.Sprint(want), func() bool { return do(t, c, "GET", "http://web/").status == want })
			if reached := impostor.Requests.Load() > before; reached != tc.reached {
				t.Errorf("%v: reached: %v", tc.identities, reached)
			}
		}
	})
	t.Run("no identity known", func(t *testing.T) {
		none := e
		none.Identity = ""
		s.endpoints(web, none)
		before := impostor.Requests.Load()
		for range 5 {
			if r := do(t, c, "GET", "http://web/"); r.status != 503 {
				t.Errorf("status %d", r.status)
			}
		}
		if n := impostor.Requests.Load() - before; n != 0 {
			t.Errorf("%d requests reached it", n)
		}
	})
}

// TestWhoMayAsk: only members of the mesh, and only for what the waypoint serves.
func TestWhoMayAsk(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, true, nil)
	if r := do(t, s.caller(clientID).client(t, dialled, nil), "GET", "http://web/"); r.status != 200 {
		t.Fatalf("a member: %d", r.status)
	}
	for _, name := range []string{
		"80.other.shop", "81.web.shop", "web:80", "127.0.0.1:15000", "../service/shop/web/80", "", s.waypoint.String(),
	} {
		c, err := s.caller(clientID).dial(t.Context(), name)
		if err != nil {
			t.Fatalf("%q: %v", name, err)
		}
		if err := asks(c); err == nil {
			t.Errorf("%q is answered", name)
		}
	}
	line := s.accessLog(map[string]any{"direction": "waypoint-mtls", "dialled": "80.other.shop"})
	if line["source"] != clientID {
		t.Errorf("access log: %v", line)
	}
	foreign := testca.New(t, "cluster.local")
	for what, certs := range map[string][]tls.Certificate{
		"no certificate":       nil,
		"another authority":    {foreign.Issue(clientID)},
		"another trust domain": {s.ca.Issue("spiffe://elsewhere/ns/front/sa/client")},
		"no SPIFFE ID":         {s.ca.Issue("https://cluster.local/ns/front")},
	} {
		c := newCaller(t, s.address(), s.waypoint, &tls.Config{Certificates: certs, VerifyConnection: peer(s.ca, waypointID)})
		if conn, err := c.dial(t.Context(), dialled); err == nil { // TLS 1.3 tells the client later
			if asks(conn) == nil {
				t.Errorf("%s: is answered", what)
			}
		}
	}
	c := newCaller(t, s.address(), s.waypoint, &tls.Config{
		Certificates: []tls.Certificate{s.ca.Issue(clientID)}, VerifyConnection: peer(s.ca, waypointID),
		MaxVersion: tls.VersionTLS12,
	})
	if _, err := c.dial(t.Context(), dialled); err == nil {
		t.Error("TLS 1.2 is spoken")
	}
}

// asks for something over a connection to the waypoint, and says why there is no answer.
func asks(c *tls.Conn) error {
	defer func() { _ = c.Close() }()
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	_, err := c.Read(make([]byte, 1))
	return err
}

// TestIdentitiesNeverMix: many callers at once, some of which give up, and each request arrives as its own caller's.
// All of it goes over a few connections to the pod.
func TestIdentitiesNeverMix(t *testing.T) {
	w := newWorld(t)
	var wrong, served atomic.Int64
	e, p := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		served.Add(1)
		if got := r.Header["X-Forwarded-Client-Cert"]; len(got) != 1 || got[0] != "URI="+r.Header.Get("X-Claim") {
			wrong.Add(1)
		}
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, nil)
	// Requests that come before Envoy has noted an address each make a connection; one alone makes one.
	do(t, w.caller(clientID).client(t, dialled, nil), "GET", "http://web/", "X-Claim", clientID)
	const callers, requests = 8, 60
	var wg sync.WaitGroup
	for i := range callers {
		id := fmt.Sprintf("spiffe://cluster.local/ns/front/sa/client-%d", i)
		caller := w.caller(id)
		wg.Go(func() {
			for n := range requests {
				if n%3 == 0 { // gives up at once: the internal connection may not even stand
					if c, err := caller.dial(t.Context(), dialled); err == nil {
						_ = c.Close()
					}
					continue
				}
				// A new connection each time.
				client := caller.client(t, dialled, nil)
				if r := do(t, client, "GET", "http://web/", "X-Claim", id); r.status != 200 {
					t.Errorf("status %d", r.status)
				}
				client.CloseIdleConnections()
			}
		})
	}
	wg.Wait()
	if wrong.Load() != 0 || served.Load() < callers*requests*2/3 {
		t.Errorf("%d of %d requests arrived as another caller's", wrong.Load(), served.Load())
	}
	t.Logf("%d requests of %d callers over %d connections to the pod", served.Load(), callers, p.opened.Load())
	if n := p.opened.Load(); n > 4*callers { // those that are busy at one time, for each of Envoy's workers
		t.Errorf("%d connections to the pod", n)
	}
}
