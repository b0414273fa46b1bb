// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestConnectionsAreCounted, by the metrics that docs/metrics.md names, of which Envoy keeps few.
func TestConnectionsAreCounted(t *testing.T) {
	s := newShop(t)
	db := model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}
	s.backend(db, model.ProtocolTCP,
		model.Endpoint{Address: s.listen(func(c *net.TCPConn) { _, _ = io.WriteString(c, "hello") })})
	caller := s.caller(clientID)
	require.Equal(t, http.StatusOK, do(t, caller.client(t, s.serve(web, true, nil), nil), "GET", "http://web/").status)
	_, in := raw(t, caller, s.serve(db, false, nil))
	got, err := io.ReadAll(in)
	require.NoError(t, err)
	require.Equal(t, "hello", string(got))
	for _, counter := range []string{"http.service.downstream_cx_total: 1\n", "tcp.mtls.downstream_cx_total: 1\n"} {
		eventually.True(s.t, counter, func() bool {
			return strings.Contains(s.stats("downstream_cx_total"), counter)
		})
	}
}
