// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/test/streamtest"
)

// hurried is the time limit of a test, in place of the one that there is.
const hurried = 300 * time.Millisecond

// ends waits for the other side to end a connection.
func ends(t *testing.T, c io.Reader) {
	t.Helper()
	_, err := io.Copy(io.Discard, c)
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		t.Error("the connection is open still")
	}
}

// TestSlowHandshakes: a connection that never proves an identity is not kept.
func TestSlowHandshakes(t *testing.T) {
	w := newWorld(t)
	l := waypoint.MTLSListener(w.model())
	for _, chain := range l.GetFilterChains() {
		if limit := chain.GetTransportSocketConnectTimeout().AsDuration(); limit <= 0 || limit > 10*time.Second {
			t.Fatalf("a handshake may take %s", limit)
		}
		chain.TransportSocketConnectTimeout = envoy.Duration(hurried)
	}
	if limit := l.GetListenerFiltersTimeout().AsDuration(); limit <= 0 || limit > 10*time.Second {
		t.Fatalf("a peer may be silent for %s", limit)
	}
	l.ListenerFiltersTimeout = envoy.Duration(hurried)
	u := resource(t, names.ListenerMTLS, l)
	w.apply(u)
	w.acknowledged(u)
	hello, err := streamtest.ClientHello(t.Context(), "80.web.shop")
	if err != nil {
		t.Fatal(err)
	}
	for _, begin := range []string{"", "\x16", "\x16\x03\x01\x02\x00\x01", hello} {
		var c net.Conn
		eventually.True(w.t, "the listener to be bound", func() bool { // Envoy acknowledges it before that
			var err error
			c, err = net.Dial("tcp", netip.AddrPortFrom(w.waypoint, names.PortMTLS).String())
			return err == nil
		})
		_ = c.SetDeadline(time.Now().Add(patience))
		_, _ = io.WriteString(c, begin)
		ends(t, c)
		_ = c.Close()
	}
}

// TestSlowHeaders: a request whose headers never end is not waited for.
func TestSlowHeaders(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, true, nil)
	s.hurry()
	for _, begin := range []string{"G", "GET / HTTP/1.1\r\nHost: web\r\nX-Long: "} {
		c, err := s.caller(clientID).dial(t.Context(), dialled)
		if err != nil {
			t.Fatal(err)
		}
		timer := time.AfterFunc(patience, func() { t.Error("the connection is open still"); _ = c.Close() })
		_, _ = io.WriteString(c, begin)
		ends(t, c)
		timer.Stop()
		_ = c.Close()
	}
	if r := do(t, s.caller(clientID).client(t, dialled, nil), "GET", "http://web/"); r.status != 200 {
		t.Errorf("a request that doesn't wait: %d", r.status)
	}
}

// managerOf is the filter of a waypoint's listener that speaks HTTP.
func managerOf(l *listenerv3.Listener) *listenerv3.Filter {
	filters := l.GetFilterChains()[0].GetFilters()
	return filters[len(filters)-1]
}

// hurry shortens the time for headers, and for a connection to begin or to end.
func (w *world) hurry() {
	w.t.Helper()
	l := waypoint.MTLSListener(w.model())
	m := &hcmv3.HttpConnectionManager{}
	if err := proto.Unmarshal(managerOf(l).GetTypedConfig().GetValue(), m); err != nil {
		w.t.Fatal(err)
	}
	within := func(most time.Duration, limit *durationpb.Duration) *durationpb.Duration {
		w.t.Helper()
		if d := limit.AsDuration(); d <= 0 || d > most {
			w.t.Fatalf("a limit is %s, not up to %s", d, most)
		}
		return envoy.Duration(hurried)
	}
	m.RequestHeadersTimeout = within(time.Minute, m.GetRequestHeadersTimeout())
	m.DelayedCloseTimeout = within(time.Minute, m.GetDelayedCloseTimeout())
	idle := m.GetCommonHttpProtocolOptions()
	idle.IdleTimeout = within(time.Hour, idle.GetIdleTimeout())
	managerOf(l).ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(m)}
	u := resource(w.t, names.ListenerMTLS, l)
	w.apply(u)
	w.acknowledged(u)
}
