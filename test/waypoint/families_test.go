// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"testing"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
)

// TestBothFamilies gives a running waypoint a second address, of the other family, as where its Service gets one.
func TestBothFamilies(t *testing.T) {
	l, err := net.Listen("tcp", "[::1]:0")
	if err != nil {
		t.Skip("this machine has no IPv6: ", err)
	}
	_ = l.Close()
	w := newWorld(t)
	w.backend(web, model.ProtocolHTTP, model.Endpoint{Address: w.app(&echo{Name: "v1"})})
	dialled := w.serve(web, true, nil)

	v6 := netip.IPv6Loopback()
	listens := w.model()
	listens.Listen = append(listens.Listen, v6)
	both := resource(t, names.ListenerMTLS, waypoint.MTLSListener(listens))
	w.apply(both)
	w.acknowledged(both)
	over6 := newCaller(t, v6, v6, &tls.Config{
		Certificates: []tls.Certificate{w.ca.Issue(clientID)}, VerifyConnection: peer(w.ca, waypointID),
	})
	for name, c := range map[string]*caller{"IPv4": w.caller(clientID), "IPv6": over6} {
		client := c.client(t, dialled, nil)
		// Envoy has opened new sockets; a connection that still waited at the old one is lost.
		eventually.True(w.t, "an answer over "+name, func() bool {
			resp, err := client.Get("http://web/")
			if err != nil {
				return false
			}
			_ = resp.Body.Close()
			return resp.StatusCode == http.StatusOK
		})
	}
}
