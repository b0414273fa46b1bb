// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// listen starts a TCP server and is its address.
func (w *world) listen(serve func(*net.TCPConn)) netip.AddrPort {
	w.t.Helper()
	address := netip.AddrPortFrom(w.address(), 8080)
	l, err := net.Listen("tcp", address.String())
	if err != nil {
		w.t.Fatal(err)
	}
	netnstest.ServeOn(w.t, l, func(c net.Conn) { serve(c.(*net.TCPConn)) })
	return address
}

// inMesh is the endpoint of a pod whose application listens at an address.
func (w *world) inMesh(id string, app netip.AddrPort) (model.Endpoint, *pod) {
	w.t.Helper()
	p := newPod(w.t, app, w.ca.Issue(id), peer(w.ca, waypointID))
	return model.Endpoint{Address: app, MTLS: true, Identity: id}, p
}

func TestTCP(t *testing.T) {
	w := newWorld(t)
	// Reads all, then answers: it needs the client's FIN to arrive and the way back to stay open.
	e, _ := w.inMesh(appID, w.listen(func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "%d bytes", len(b))
	}))
	outside := model.Endpoint{Address: w.listen(func(c *net.TCPConn) {
		b, _ := io.ReadAll(c)
		_, _ = fmt.Fprintf(c, "%d bytes", len(b))
	})}
	db := model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
	old := model.ServicePort{Namespace: "shop", Service: "old-db", Port: 5432}
	w.backend(db, model.ProtocolTCP, e)
	w.backend(old, model.ProtocolTCP, outside)
	for _, dialled := range []string{w.serve(db, false, nil), w.serve(old, false, nil)} {
		c, err := w.caller(clientID).dial(t.Context(), dialled)
		if err != nil {
			t.Fatal(err)
		}
		const size = 3 << 20
		if _, err := c.Write(make([]byte, size)); err != nil {
			t.Fatal(err)
		}
		_ = c.CloseWrite()
		got, err := io.ReadAll(c)
		if want := fmt.Sprintf("%d bytes", size); err != nil || string(got) != want {
			t.Errorf("%s: %q, %v", dialled, got, err)
		}
		_ = c.Close()
	}
	line := w.accessLog(map[string]any{"dialled": "5432.db.shop"})
	if line["source"] != clientID || line["destination"] != appID {
		t.Errorf("access log: %v", line)
	}
}

// TestUndeclared: a port that a route made HTTP is nothing else. Who says nothing, half a word, or something else than
// HTTP reaches no application, and the log says why; but of silence, of which there is nothing to say.
func TestUndeclared(t *testing.T) {
	s := newShop(t)
	var reached atomic.Int64
	greets, _ := s.inMesh(appID, s.listen(func(c *net.TCPConn) {
		reached.Add(1)
		_, _ = io.WriteString(c, "220 hello\r\n")
		_, _ = io.Copy(c, c)
	}))
	s.backend(web, model.ProtocolHTTP, greets)
	dialled := s.serve(web, true, &model.RouteTable{Default: pointers([]model.Rule{rule(below("/"), nil, to(webV2, 1))})})
	s.hurry()
	caller := s.caller(clientID)
	if r := do(t, caller.client(t, dialled, nil), "GET", "http://web/"); r.Name != "v2" || r.Proto != "HTTP/1.1" {
		t.Errorf("HTTP/1.1: %d from %q in %s", r.status, r.Name, r.Proto)
	}
	if r := do(t, caller.client(t, dialled, h2cOnly()), "GET", "http://web/"); r.Name != "v2" || r.Proto != "HTTP/2.0" {
		t.Errorf("h2c: %d from %q in %s", r.status, r.Name, r.Proto)
	}
	var wg sync.WaitGroup
	for first, detail := range map[string]string{
		"EHLO x\r\n": "http1.codec_error", "\x16\x03\x01": "http1.codec_error",
		"G": "request_header_timeout", "": "",
	} {
		wg.Go(func() {
			c, in := raw(t, caller, dialled)
			_, _ = io.WriteString(c, first)
			if got, err := io.ReadAll(in); strings.Contains(string(got), "hello") {
				t.Errorf("after %q: %q, %v", first, got, err)
			}
			if detail != "" {
				s.accessLog(map[string]any{"dialled": dialled, "detail": detail})
			}
		})
	}
	wg.Wait()
	if n := reached.Load(); n != 0 {
		t.Errorf("the application was reached %d times", n)
	}
}

func TestWebSocket(t *testing.T) {
	script := model.Extension{Name: "script", Lua: &model.Lua{Source: request("handle:headers():add('x-seen', '1')")}}
	for what, table := range map[string]*model.RouteTable{
		"routes": nil,
		"answers that are kept whole": {
			Default: pointers([]model.Rule{rule(below("/"), filters(model.Filter{Extension: &script}), to(web, 1))}),
		},
	} {
		t.Run(what, func(t *testing.T) { webSocket(t, table) })
	}
}

func webSocket(t *testing.T, table *model.RouteTable) {
	w := newWorld(t)
	e, _ := w.pod(appID, http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Upgrade") != "websocket" {
			rw.WriteHeader(http.StatusBadRequest)
			return
		}
		c, b, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			return
		}
		defer func() { _ = c.Close() }()
		_, _ = io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
		_, _ = io.Copy(c, b)
	}))
	w.backend(web, model.ProtocolHTTP, e)
	dialled := w.serve(web, true, table)
	c, err := w.caller(clientID).dial(t.Context(), dialled)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = io.WriteString(c, "GET /chat HTTP/1.1\r\nHost: web\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n")
	in := bufio.NewReader(c)
	if status, err := readStatus(in); err != nil || status != http.StatusSwitchingProtocols {
		t.Fatalf("status %d, %v", status, err)
	}
	for i := range 3 {
		message := fmt.Sprintf("message %d\n", i)
		_, _ = io.WriteString(c, message)
		if got, err := in.ReadString('\n'); err != nil || got != message {
			t.Errorf("echo %q, %v", got, err)
		}
	}
	_ = c.Close()
}

// readStatus reads the head of an answer.
func readStatus(in *bufio.Reader) (int, error) {
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return 0, err
	}
	return resp.StatusCode, resp.Body.Close()
}

func TestGRPC(t *testing.T) {
	w := newWorld(t)
	serve := func(serving healthpb.HealthCheckResponse_ServingStatus) model.Endpoint {
		hs := health.NewServer()
		hs.SetServingStatus("", serving)
		g := grpc.NewServer()
		healthpb.RegisterHealthServer(g, hs)
		address := netip.AddrPortFrom(w.address(), 8080)
		l, err := net.Listen("tcp", address.String())
		if err != nil {
			t.Fatal(err)
		}
		go func() { _ = g.Serve(l) }()
		t.Cleanup(g.Stop)
		e, _ := w.inMesh(appID, address)
		return e
	}
	v1 := model.ServicePort{Namespace: "shop", Service: "rpc-v1", Port: 9000}
	v2 := model.ServicePort{Namespace: "shop", Service: "rpc-v2", Port: 9000}
	w.backend(v1, model.ProtocolHTTP2, serve(healthpb.HealthCheckResponse_SERVING))
	w.backend(v2, model.ProtocolHTTP, serve(healthpb.HealthCheckResponse_NOT_SERVING))
	grpcRule := func(m model.Match, b ...model.Backend) model.Rule {
		return model.Rule{
			Source: model.ObjectRef{Kind: "GRPCRoute", Namespace: "shop", Name: "rpc"}, GRPC: true, Match: m,
			Backends: b,
		}
	}
	rpc := model.ServicePort{Namespace: "shop", Service: "rpc", Port: 9000}
	canary := model.Match{GRPCService: "grpc.health.v1.Health", GRPCMethod: "Check", Headers: []model.NamedMatch{
		{Name: "canary", StringMatch: model.StringMatch{Type: model.MatchExact, Value: "1"}},
	}}
	dialled := w.serve(rpc, true, &model.RouteTable{Default: pointers([]model.Rule{
		grpcRule(canary, to(v2, 1)),
		grpcRule(model.Match{GRPCMethod: "Check"}, to(v1, 1)),
		grpcRule(model.Match{GRPCService: "grpc.health.v1.Health", GRPCMethod: "Watch"}, to(v1, 1)),
		grpcRule(model.Match{GRPCService: "invalid"}, model.Backend{Port: v1, Weight: 1, Invalid: true}),
		grpcRule(model.Match{GRPCService: "half.invalid"}, model.Backend{Port: gone, Weight: 1, Invalid: true},
			model.Backend{Port: v1, Weight: 0}, to(v1, 0), model.Backend{Port: gone, Weight: 1, Invalid: true}),
	})})
	caller := w.caller(clientID)
	cc, err := grpc.NewClient("passthrough:///rpc:9000", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(context.Context, string) (net.Conn, error) {
			return caller.dial(context.Background(), dialled)
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cc.Close() })
	c := healthpb.NewHealthClient(cc)
	if r, err := c.Check(t.Context(), &healthpb.HealthCheckRequest{}); err != nil ||
		r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Check: %v, %v", r, err)
	}
	if r, err := c.Check(metadataContext(t, "canary", "1"), &healthpb.HealthCheckRequest{}); err != nil ||
		r.GetStatus() != healthpb.HealthCheckResponse_NOT_SERVING {
		t.Errorf("canary: %v, %v", r, err)
	}
	stream, err := c.Watch(t.Context(), &healthpb.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if r, err := stream.Recv(); err != nil || r.GetStatus() != healthpb.HealthCheckResponse_SERVING {
		t.Errorf("Watch: %v, %v", r, err)
	}
	for method, want := range map[string]codes.Code{
		"/invalid/X": codes.Unavailable, "/half.invalid/X": codes.Unavailable, "/none/X": codes.Unimplemented,
	} {
		err := cc.Invoke(t.Context(), method, &healthpb.HealthCheckRequest{}, &healthpb.HealthCheckResponse{})
		if status.Code(err) != want {
			t.Errorf("%s: %v, want %s", method, err, want)
		}
	}
}

// TestOldClients: what HTTP allows and few still send.
func TestOldClients(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, true, nil)
	for what, request := range map[string]string{
		"HTTP/1.0 without a host": "GET / HTTP/1.0\r\n\r\n",
		"upgrade to h2c": "GET / HTTP/1.1\r\nHost: web\r\nConnection: Upgrade, HTTP2-Settings, close\r\nUpgrade: h2c\r\n" +
			"HTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n",
		"absolute URL": "GET http://web/ HTTP/1.1\r\nHost: web\r\nConnection: close\r\n\r\n",
		"a chunked body": "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\nConnection: " +
			"close\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
		"expect continue": "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 2\r\nExpect: 100-continue\r\nConnection: " +
			"close\r\n\r\nhi",
	} {
		c, err := s.caller(clientID).dial(t.Context(), dialled)
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.WriteString(c, request)
		in := bufio.NewReader(c)
		status, err := readStatus(in)
		if status == http.StatusContinue {
			status, err = readStatus(in)
		}
		if err != nil || status != http.StatusOK {
			t.Errorf("%s: status %d, %v", what, status, err)
		}
		_ = c.Close()
	}
}
