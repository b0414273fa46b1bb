// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"io"
	"net/http"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// TestPortsThatGo: who keeps a connection to a port that is no longer served here hears that it is to connect again,
// and never that what it asks for is not there. Nobody else notices.
func TestPortsThatGo(t *testing.T) {
	s := newShop(t)
	dialled := s.serve(web, true, nil)
	api := pointers([]model.Rule{rule(below("/api"), nil, to(webV2, 1))})
	stays := s.serve(webV2, true, &model.RouteTable{Default: api})
	caller := s.caller(clientID)
	kept, keptIn := raw(t, caller, dialled)
	other, otherIn := raw(t, caller, stays)
	h2 := caller.client(t, dialled, h2cOnly())
	require.Equal(t, http.StatusOK, do(t, h2, "GET", "http://web/").status)

	s.ports = slices.DeleteFunc(s.ports, func(p model.ServedPort) bool { return p.ServicePort == web })
	name := names.ServicePort(web.Namespace, web.Service, web.Port)
	s.apply(s.listener(), xds.Gone(xds.ID{TypeURL: xds.TypeScopedRoute, Name: name}),
		xds.Gone(xds.ID{TypeURL: xds.TypeRoute, Name: name}))

	eventually.True(s.t, "the answer that the port is gone", func() bool {
		_, err := io.WriteString(kept, "GET / HTTP/1.1\r\nHost: web\r\n\r\n")
		require.NoError(t, err)
		resp, body := answerTo(t, keptIn)
		if resp.StatusCode == http.StatusOK {
			return false
		}
		require.Equal(t, http.StatusServiceUnavailable, resp.StatusCode)
		require.True(t, resp.Close, "%v", resp.Header)
		require.Contains(t, body, "connect again")
		require.Empty(t, resp.Header.Get("X-Fairway-Gone"))
		return true
	})
	require.Equal(t, http.StatusServiceUnavailable, do(t, h2, "GET", "http://web/").status)
	eventually.True(s.t, "the connection of HTTP/2 to end", func() bool {
		resp, err := h2.Get("http://web/")
		if err == nil {
			require.NoError(t, resp.Body.Close())
		}
		return err != nil
	})

	for path, want := range map[string]int{"/api": 200, "/else": 404, "*": 404} {
		for range 2 {
			_, err := io.WriteString(other, "OPTIONS "+path+" HTTP/1.1\r\nHost: web\r\n\r\n")
			require.NoError(t, err)
			resp, _ := answerTo(t, otherIn)
			require.Equal(t, want, resp.StatusCode, path)
			require.False(t, resp.Close, path)
		}
	}
}
