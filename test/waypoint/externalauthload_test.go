// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestExternalAuthUnderLoad: while the service changes, and while it dies, no request passes that it has not let pass,
// and no connection ends.
func TestExternalAuthUnderLoad(t *testing.T) {
	const mark = "X-Let-In"
	services := map[model.ServicePort]*grpc.Server{}
	g := newGuarded(t, model.ProtocolHTTP2, http.NotFoundHandler())
	for n, at := range []model.ServicePort{sessions, {Namespace: "auth", Service: "other", Port: 81}} {
		service := &authorizer{}
		service.decides(func(context.Context, *authv3.AttributeContext) *authv3.CheckResponse {
			return yes(&authv3.OkHttpResponse{Headers: headerOptions(mark, strconv.Itoa(n))})
		})
		server := grpc.NewServer()
		authv3.RegisterAuthorizationServer(server, service)
		address := netip.AddrPortFrom(g.address(), 8081)
		l, err := net.Listen("tcp", address.String())
		require.NoError(t, err)
		go func() { _ = server.Serve(l) }()
		t.Cleanup(server.Stop)
		services[at] = server
		g.backend(at, model.ProtocolHTTP2, model.Endpoint{Address: address})
	}
	other := model.ServicePort{Namespace: "auth", Service: "other", Port: 81}
	asking := func(at model.ServicePort) {
		a := model.ExternalAuth{Service: at, GRPC: true, Timeout: 20 * time.Second}
		g.rules(rule(below("/"), filters(model.Filter{ExternalAuth: &a}), to(web, 1)))
	}
	asking(sessions)
	get := func() reply { return do(t, g.client, http.MethodPost, "http://web/") }
	eventually.True(t, "the first service", func() bool { return get().Header.Get(mark) == "0" })

	changes := g.stats("listener_manager.listener_")
	const callers = 4
	stop, done := make(chan struct{}), make(chan load)
	for range callers {
		go func() { done <- g.load(mark, stop) }()
	}
	for n := range 60 {
		asking([]model.ServicePort{other, sessions}[n%2])
	}
	services[sessions].Stop()
	eventually.True(t, "nobody to ask", func() bool { return get().status == http.StatusServiceUnavailable })
	asking(other)
	eventually.True(t, "another to ask", func() bool { return get().Header.Get(mark) == "1" })
	close(stop)
	l := load{by: map[string]int{}}
	for range callers {
		l.add(<-done)
	}
	require.Zero(t, l.unasked, "requests that nobody let in: %+v", l)
	require.Positive(t, l.refused)
	require.Positive(t, l.by["0"])
	require.Positive(t, l.by["1"])
	require.Equal(t, callers, l.connections, "%+v", l)
	require.Equal(t, changes, g.stats("listener_manager.listener_"))
	require.NotContains(t, g.log.String(), "[rbac]", "a line for each question")
	t.Logf("%+v", l)
}

// load is what became of requests: let in, by which service, or refused.
type load struct {
	by               map[string]int
	refused, unasked int
	connections      int
}

func (l *load) add(o load) {
	for by, n := range o.by {
		l.by[by] += n
	}
	l.refused, l.unasked, l.connections = l.refused+o.refused, l.unasked+o.unasked, l.connections+o.connections
}

// load sends requests over one connection until it is stopped.
func (g *guarded) load(mark string, stop <-chan struct{}) load {
	c := &counted{t: g.t, client: g.caller(clientID).client(g.t, g.name, nil)}
	out := load{by: map[string]int{}}
	for {
		select {
		case <-stop:
			out.connections = c.connections
			return out
		default:
		}
		resp := c.ask("/")
		var r echoed
		err := json.NewDecoder(resp.Body).Decode(&r)
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		switch by := r.Header.Get(mark); {
		case resp.StatusCode == http.StatusServiceUnavailable:
			out.refused++
		case err != nil || by == "":
			out.unasked++
		default:
			out.by[by]++
		}
	}
}
