// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/netip"
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	"github.com/stretchr/testify/require"
	"golang.org/x/net/http2"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
)

// TestConnectionsOfPeers: connections to a waypoint are counted before they prove anything, and there is an end to
// them. The limit is lowered, so that the test needn't reach it.
func TestConnectionsOfPeers(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, model.ProtocolHTTP, true, nil)
	const most = 3
	l := waypoint.HBONEListener(waypointID, s.waypoint)
	filter := l.GetFilterChains()[0].GetFilters()[0]
	limit := &connectionlimitv3.ConnectionLimit{}
	require.NoError(t, filter.GetTypedConfig().UnmarshalTo(limit))
	require.LessOrEqual(t, limit.GetMaxConnections().GetValue(), uint64(bootstrap.DefaultMaxConnections/16))
	limit.MaxConnections = wrapperspb.UInt64(most)
	filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(limit)}
	u := resource(t, names.ListenerHBONE, l)
	s.apply(u)
	s.acknowledged(u)
	closed := make(chan net.Conn, most+1)
	var silent []net.Conn
	for range most + 1 {
		var c net.Conn
		s.eventually("the listener to be bound", func() bool {
			var err error
			c, err = net.Dial("tcp", netip.AddrPortFrom(s.waypoint, names.PortHBONE).String())
			return err == nil
		})
		silent = append(silent, c)
		go func() {
			_, _ = io.Copy(io.Discard, c)
			closed <- c
		}()
	}
	<-closed
	for _, c := range silent {
		_ = c.Close()
	}
	s.eventually("a caller to be served again", func() bool {
		resp, err := s.caller(clientID).client(t, dialled, nil).Get("http://web/")
		if err != nil {
			return false
		}
		return resp.Body.Close() == nil && resp.StatusCode == http.StatusOK
	})
}

// TestTunnelsOfAConnection: a peer may have so many tunnels in one connection, and no more.
func TestTunnelsOfAConnection(t *testing.T) {
	s := newShop(t)
	var c *tls.Conn
	s.eventually("the listener to be bound", func() bool {
		var err error
		c, err = tls.Dial("tcp", netip.AddrPortFrom(s.waypoint, names.PortHBONE).String(), &tls.Config{
			Certificates: []tls.Certificate{s.ca.issue(clientID)}, VerifyConnection: s.ca.peer(waypointID),
			InsecureSkipVerify: true, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
		})
		return err == nil
	})
	t.Cleanup(func() { _ = c.Close() })
	require.NoError(t, c.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(c, http2.ClientPreface)
	require.NoError(t, err)
	f := http2.NewFramer(c, c)
	require.NoError(t, f.WriteSettings())
	frame, err := f.ReadFrame()
	require.NoError(t, err)
	settings, ok := frame.(*http2.SettingsFrame)
	require.True(t, ok, "the first frame is %s", frame.Header())
	most, ok := settings.Value(http2.SettingMaxConcurrentStreams)
	require.True(t, ok, "there is a limit")
	require.LessOrEqual(t, most, uint32(1024))
}
