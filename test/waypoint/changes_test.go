// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc/metadata"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

func metadataContext(t *testing.T, kv ...string) context.Context {
	return metadata.NewOutgoingContext(t.Context(), metadata.Pairs(kv...))
}

// TestRouteEdits: nothing that is open notices an edit of its routes, and the next request follows it.
func TestRouteEdits(t *testing.T) {
	s := newShop(t)
	release := make(chan struct{})
	stream, _ := s.pod(appID, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		rc := http.NewResponseController(w)
		for i := range 3 {
			_, _ = fmt.Fprintf(w, "part %d\n", i)
			_ = rc.Flush()
			if i == 0 {
				<-release
			}
		}
	}))
	slow := model.ServicePort{Namespace: "shop", Service: "slow", Port: 80}
	s.backend(slow, model.ProtocolHTTP, stream)
	table := func(p model.ServicePort) model.RouteTable {
		return model.RouteTable{
			Attachment: model.Attachment{Port: web},
			Default:    pointers([]model.Rule{rule(below("/slow"), nil, to(slow, 1)), rule(below("/"), nil, to(p, 1))}),
		}
	}
	first := table(webV1)
	dialled := s.serve(web, true, &first)
	caller := s.caller(clientID)

	long, err := caller.client(t, dialled, nil).Get("http://web/slow")
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = long.Body.Close() }()
	in := bufio.NewReader(long.Body)
	if got, err := in.ReadString('\n'); err != nil || got != "part 0\n" {
		t.Fatalf("%q, %v", got, err)
	}

	// Load during all of the edits, on connections that are kept.
	const clients, edits = 4, 50
	var failed, requests, connections atomic.Int64
	done := make(chan struct{})
	var wg sync.WaitGroup
	for range clients {
		c := caller.client(t, dialled, nil)
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				req, _ := http.NewRequestWithContext(httptrace.WithClientTrace(context.Background(), &httptrace.ClientTrace{
					GotConn: func(i httptrace.GotConnInfo) {
						if !i.Reused {
							connections.Add(1)
						}
					},
				}), http.MethodGet, "http://web/", nil)
				resp, err := c.Do(req)
				requests.Add(1)
				if err != nil || resp.StatusCode != http.StatusOK {
					failed.Add(1)
					continue
				}
				_, _ = bufio.NewReader(resp.Body).WriteTo(discard{})
				_ = resp.Body.Close()
			}
		})
	}
	probe := caller.client(t, dialled, nil)
	var sum, worst time.Duration
	for i := range edits {
		p, want := webV2, "v2"
		if i%2 == 1 {
			p, want = webV1, "v1"
		}
		u := s.tableOf(table(p))
		start := time.Now()
		s.apply(u)
		eventually.True(s.t, "the edit to show", func() bool { return do(t, probe, "GET", "http://web/").Name == want })
		took := time.Since(start)
		sum, worst = sum+took, max(worst, took)
	}
	close(done)
	wg.Wait()
	t.Logf("%d edits under load: mean %s, worst %s until the new route answers; %d requests, %d failed, %d connections "+
		"of %d clients",
		edits, (sum / edits).Round(100*time.Microsecond), worst.Round(100*time.Microsecond), requests.Load(), failed.Load(),
		connections.Load(), clients)
	if failed.Load() != 0 || connections.Load() != clients {
		t.Errorf("%d of %d requests failed, %d connections", failed.Load(), requests.Load(), connections.Load())
	}
	close(release)
	for i := 1; i < 3; i++ {
		if got, err := in.ReadString('\n'); err != nil || got != fmt.Sprintf("part %d\n", i) {
			t.Errorf("the open answer: %q, %v", got, err)
		}
	}
}

type discard struct{}

func (discard) Write(p []byte) (int, error) { return len(p), nil }

// TestEndpointChanges: a draining endpoint gets nothing new while another is left, and what it is doing goes on.
func TestEndpointChanges(t *testing.T) {
	w := newWorld(t)
	release := make(chan struct{})
	inside := make(chan struct{})
	old, fresh := &echo{Name: "old"}, &echo{Name: "fresh"}
	e1, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			close(inside)
			<-release
		}
		old.ServeHTTP(rw, r)
	}))
	e2, _ := w.pod(appID, fresh)
	w.backend(web, model.ProtocolHTTP, e1)
	dialled := w.serve(web, true, nil)
	c := w.caller(clientID).client(t, dialled, nil)

	answer := make(chan reply, 1)
	go func() { answer <- do(t, w.caller(clientID).client(t, dialled, nil), "GET", "http://web/slow") }()
	<-inside

	draining := e1
	draining.Draining = true
	w.endpoints(web, draining)
	if r := do(t, c, "GET", "http://web/"); r.Name != "old" {
		t.Errorf("the only endpoint drains: %d from %q", r.status, r.Name)
	}
	w.endpoints(web, draining, e2)
	eventually.True(w.t, "the new endpoint to take over", func() bool {
		return do(t, c, "GET", "http://web/").Name == "fresh"
	})
	for range 50 {
		if r := do(t, c, "GET", "http://web/"); r.Name != "fresh" {
			t.Errorf("a draining endpoint got a request: %d from %q", r.status, r.Name)
		}
	}
	w.endpoints(web, e2)
	close(release)
	if r := <-answer; r.status != 200 || r.Name != "old" {
		t.Errorf("the request that was open when its endpoint went: %d from %q", r.status, r.Name)
	}
}

// TestDeadEndpoint: an endpoint that is gone before the control plane says so costs no request.
func TestDeadEndpoint(t *testing.T) {
	w := newWorld(t)
	alive := &echo{Name: "alive"}
	e, _ := w.pod(appID, alive)
	dead := model.Endpoint{Address: netip.AddrPortFrom(w.address(), 8080), MTLS: true, Identity: appID}
	deadOutside := model.Endpoint{Address: netip.AddrPortFrom(w.address(), 8080)}
	w.backend(web, model.ProtocolHTTP, e, dead)
	w.backend(plain, model.ProtocolHTTP, e, deadOutside)
	refuses := model.Endpoint{Address: netip.AddrPortFrom(w.address(), 8080), MTLS: true, Identity: appID}
	l, err := net.Listen("tcp", netip.AddrPortFrom(refuses.Address.Addr(), names.PortMTLS).String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			time.AfterFunc(50*time.Millisecond, func() { _ = conn.Close() })
		}
	}()
	w.backend(webV1, model.ProtocolHTTP, e, refuses)
	for _, p := range []model.ServicePort{web, plain, webV1} {
		c := w.caller(clientID).client(t, w.serve(p, true, nil), nil)
		for _, method := range []string{"GET", "POST"} {
			count := map[int]int{}
			for range 50 {
				count[do(t, c, method, "http://web/").status]++
			}
			t.Log(p.Service, method, count)
			// What is not safe may be repeated, too, for it can't have left: a connection was never made.
			if count[200] != 50 {
				t.Errorf("%s to %s: %v", method, p.Service, count)
			}
		}
	}
}

// TestPortsComeAndGo: a port that comes, goes, or is no longer TCP, ends no connection of another.
func TestPortsComeAndGo(t *testing.T) {
	s := newShop(t)
	echoes := func(c *net.TCPConn) { _, _ = io.Copy(c, c) }
	in, _ := s.inMesh(appID, s.listen(echoes))
	db := model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
	s.backend(db, model.ProtocolTCP, in)
	caller := s.caller(clientID)
	overHTTP := s.serve(web, true, nil)
	overTCP := s.serve(db, false, nil)
	dial := func(to string) (net.Conn, *bufio.Reader) {
		c, err := caller.dial(t.Context(), to)
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		return c, bufio.NewReader(c)
	}
	kept, keptIn := dial(overHTTP)
	raw, rawIn := dial(overTCP)
	both := func(when string) {
		t.Helper()
		_, _ = io.WriteString(kept, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")
		if resp, err := http.ReadResponse(keptIn, nil); err != nil || resp.StatusCode != http.StatusOK {
			t.Fatalf("%s, over HTTP: %v, %v", when, resp, err)
		} else if _, err := io.Copy(io.Discard, resp.Body); err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(raw, "line\n")
		if got, err := rawIn.ReadString('\n'); err != nil || got != "line\n" {
			t.Fatalf("%s, over TCP: %q, %v", when, got, err)
		}
	}
	both("before")
	turned := model.ServicePort{Namespace: "shop", Service: "turned", Port: 80}
	s.backend(turned, model.ProtocolTCP, model.Endpoint{Address: s.app(&echo{Name: "turned"})})
	name := s.serve(turned, false, nil)
	s.serve(webV1, true, nil)
	both("with more ports")
	for n, p := range s.ports {
		if p.ServicePort == turned {
			s.ports[n].Protocol = model.ProtocolHTTP
		}
	}
	u := s.listener()
	s.apply(u)
	s.acknowledged(u)
	eventually.True(s.t, "the port to be HTTP", func() bool {
		c, in := dial(name)
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "nonsense\r\n\r\n")
		resp, err := http.ReadResponse(in, nil)
		return err == nil && resp.StatusCode == http.StatusBadRequest && resp.Header.Get("Server") == ""
	})
	both("with a port that is HTTP now")
	s.ports = []model.ServedPort{
		{ServicePort: web, Protocol: model.ProtocolHTTP},
		{ServicePort: db, Protocol: model.ProtocolTCP},
	}
	u = s.listener()
	s.apply(u)
	s.acknowledged(u)
	eventually.True(s.t, "the port to be gone", func() bool {
		c, err := caller.dial(t.Context(), name)
		return err == nil && asks(c) != nil
	})
	both("with fewer ports")
}

// TestNewPorts: nobody who asks for a port before it is there is told that it has no route.
func TestNewPorts(t *testing.T) {
	s := newShop(t)
	s.serve(webV2, true, nil)
	for n := range 10 {
		p := model.ServicePort{Namespace: "shop", Service: "fresh", Port: uint16(8000 + n)}
		s.backend(p, model.ProtocolHTTP, model.Endpoint{Address: s.app(&echo{Name: "fresh"})})
		var g errgroup.Group
		for range 4 {
			c := s.caller(clientID).client(t, names.ServerName(p.Namespace, p.Service, p.Port), nil)
			g.Go(func() error {
				for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
					resp, err := c.Get("http://fresh/")
					if err != nil {
						continue
					}
					_ = resp.Body.Close()
					if resp.StatusCode != http.StatusOK {
						return fmt.Errorf("the first answer of port %d is %d", p.Port, resp.StatusCode)
					}
					return nil
				}
				return fmt.Errorf("port %d is not there after %s", p.Port, patience)
			})
		}
		s.serve(p, true, nil)
		if err := g.Wait(); err != nil {
			t.Error(err)
		}
	}
}

// TestPortsOfPods: a pod that serves at another port from now on is reached there, and not where it was before.
func TestPortsOfPods(t *testing.T) {
	s := newShop(t)
	e, _ := s.pod(appID, &echo{Name: "old"})
	s.backend(web, model.ProtocolHTTP, e)
	moved := e
	moved.Address = netip.AddrPortFrom(e.Address.Addr(), 9090)
	s.appAt(moved.Address, &echo{Name: "new"})
	c := s.caller(clientID).client(t, s.serve(web, true, nil), nil)
	if r := do(t, c, "GET", "http://web/"); r.Name != "old" {
		t.Fatalf("%d from %q", r.status, r.Name)
	}
	s.endpoints(web, moved)
	eventually.True(s.t, "the other port to answer", func() bool { return do(t, c, "GET", "http://web/").Name == "new" })
	for range 20 {
		if r := do(t, c, "GET", "http://web/"); r.Name != "new" {
			t.Errorf("%d from %q", r.status, r.Name)
		}
	}
}

// TestBrokenConnections: callers that break off by the hundred end nobody else's connection.
func TestBrokenConnections(t *testing.T) {
	w := newWorld(t)
	e, _ := w.inMesh(appID, w.listen(func(c *net.TCPConn) { _, _ = io.Copy(c, c) }))
	w.backend(web, model.ProtocolTCP, e)
	dialled := w.serve(web, false, nil)
	caller := w.caller(clientID)
	kept, err := caller.dial(t.Context(), dialled)
	if err != nil {
		t.Fatal(err)
	}
	talk := func(c *tls.Conn, message string) {
		t.Helper()
		got := make([]byte, len(message))
		if _, err := io.WriteString(c, message); err != nil {
			t.Fatal(err)
		}
		if _, err := io.ReadFull(c, got); err != nil || string(got) != message {
			t.Fatalf("echo %q, %v", got, err)
		}
	}
	talk(kept, "before")
	for range 1500 {
		c, err := caller.dial(t.Context(), dialled)
		if err != nil {
			t.Fatal(err)
		}
		talk(c, "x")
		_ = c.Close() // with the other side still open: a reset
	}
	talk(kept, "after")
	_ = kept.Close()
}

// TestAccessLogModes: what is logged follows the mesh's setting, and the listeners stay as they are.
func TestAccessLogModes(t *testing.T) {
	s := newShop(t)
	c := s.caller(clientID).client(t, s.serve(web, true, nil), nil)
	empty := model.ServicePort{Namespace: "shop", Service: "empty", Port: 80}
	s.backend(empty, model.ProtocolHTTP)
	nobody := s.caller(clientID).client(t, s.serve(empty, true, nil), nil)
	ask := func(mode string, logAll, logErrors bool) {
		layer := resource(t, names.RuntimeLayer, envoy.RuntimeLayer(logAll, logErrors))
		s.apply(layer)
		s.acknowledged(layer)
		if r := do(t, c, "GET", "http://web/good-"+mode); r.status != 200 {
			t.Errorf("%s: status %d", mode, r.status)
		}
		if r := do(t, nobody, "GET", "http://empty/bad-"+mode); r.status != 503 {
			t.Errorf("%s: status %d", mode, r.status)
		}
	}
	ask("off", false, false)
	ask("errors", false, true)
	s.accessLog(map[string]any{"path": "/bad-errors"})
	ask("all", true, true)
	s.accessLog(map[string]any{"path": "/good-all"})
	s.accessLog(map[string]any{"path": "/bad-all"})
	for _, never := range []string{"good-off", "bad-off", "good-errors"} {
		if strings.Contains(s.log.String(), never) {
			t.Errorf("%s is in the log", never)
		}
	}
}
