// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
)

// TestComposedIsTheWholeMessage: what is put together of pieces is the message, and its version follows from all of it.
func TestComposedIsTheWholeMessage(t *testing.T) {
	routes := func(names ...string) (out []*routev3.Route) {
		for _, n := range names {
			out = append(out, &routev3.Route{Name: n})
		}
		return out
	}
	piece := func(names ...string) *Piece {
		p, err := NewPiece(3, routes(names...)...)
		require.NoError(t, err)
		return p
	}
	compose := func(frame, host string, pieces ...*Piece) *Resource {
		r, err := NewComposed("table", &routev3.RouteConfiguration{Name: frame}, 2,
			&routev3.VirtualHost{Name: host, Domains: []string{"*"}}, pieces)
		require.NoError(t, err)
		require.Equal(t, len(r.Any().GetValue()), r.size())
		return r
	}
	r := compose("table", "host", piece("a", "b"), piece(), piece("c"))
	require.Equal(t, TypeRoute, r.TypeURL())
	got, err := r.Any().UnmarshalNew()
	require.NoError(t, err)
	require.True(t, proto.Equal(&routev3.RouteConfiguration{Name: "table", VirtualHosts: []*routev3.VirtualHost{{
		Name: "host", Domains: []string{"*"}, Routes: routes("a", "b", "c"),
	}}}, got), "%v", got)

	require.True(t, r.Equal(compose("table", "host", piece("a", "b"), piece(), piece("c"))))
	for _, other := range []*Resource{
		compose("table2", "host", piece("a", "b"), piece(), piece("c")),
		compose("table", "host2", piece("a", "b"), piece(), piece("c")),
		compose("table", "host", piece("c"), piece(), piece("a", "b")),
		compose("table", "host", piece("a", "b"), piece(), piece("d")),
		compose("table", "host", piece("a", "b"), piece()),
		compose("table", "host"),
	} {
		require.False(t, r.Equal(other))
	}
	require.True(t, piece("a").Equal(piece("a")))
	require.False(t, piece("a").Equal(piece("b")))
	require.False(t, piece("a").Equal(nil))
}
