// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net"
	"net/http"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestConnectionsToEndpoints: a TrafficPolicy says how long one may take to be made, and how long it is kept.
func TestConnectionsToEndpoints(t *testing.T) {
	w := newWorld(t)
	address := netip.AddrPortFrom(w.address(), 8080)
	l, err := net.Listen("tcp", address.String())
	require.NoError(t, err)
	idle := make(chan time.Duration, 100)
	var idleSince sync.Map
	server := &http.Server{
		Handler: &echo{}, ReadHeaderTimeout: patience,
		ConnState: func(c net.Conn, s http.ConnState) {
			switch s {
			case http.StateIdle:
				idleSince.Store(c, time.Now())
			case http.StateClosed:
				if since, ok := idleSince.Load(c); ok {
					idle <- time.Since(since.(time.Time)) //nolint:forcetypeassert // as stored
				}
			}
		},
	}
	go func() { _ = server.Serve(l) }()
	t.Cleanup(func() { _ = server.Close() })
	at := model.Endpoint{Address: address}

	w.sends(model.Sending{Kept: model.Kept{IdleTimeout: 2 * time.Second}}, at)
	c := w.caller(clientID).client(t, w.serve(web, true, nil), nil)
	get := func() reply { return do(t, c, http.MethodGet, "http://web/") }
	require.Equal(t, http.StatusOK, get().status)
	require.InDelta(t, 2, (<-idle).Seconds(), 0.5, "longer than the 1 s that there is without a policy")

	t.Run("for so long", func(t *testing.T) {
		w.sends(model.Sending{Kept: model.Kept{IdleTimeout: time.Minute, MaxDuration: time.Second}}, at)
		first := get().Remote
		eventually.True(t, "another connection", func() bool { return get().Remote != first })
		require.Less(t, (<-idle).Seconds(), 5.0)
	})

	t.Run("made within", func(t *testing.T) {
		silent := netip.AddrPortFrom(w.address(), names.PortMTLS)
		mute, err := net.Listen("tcp", silent.String()) // connections are made, and no handshake is
		require.NoError(t, err)
		t.Cleanup(func() { _ = mute.Close() })
		w.sends(model.Sending{Kept: model.Kept{ConnectTimeout: 100 * time.Millisecond}},
			model.Endpoint{Address: netip.AddrPortFrom(silent.Addr(), 8080), MTLS: true, Identity: appID})
		began := time.Now()
		r := get()
		require.Equal(t, http.StatusServiceUnavailable, r.status)
		require.Less(t, time.Since(began), portTimeoutOfOneTry, "three tries of 100 ms each")
	})
}

// portTimeoutOfOneTry is what one try takes without a policy.
const portTimeoutOfOneTry = 4 * time.Second
