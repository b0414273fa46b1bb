// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc/metadata"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// TestEndpointsAreInOrderForWhereTheOperatorSaysTheProxyIs, and as they came as long as it said nothing.
func TestEndpointsAreInOrderForWhereTheOperatorSaysTheProxyIs(t *testing.T) {
	at := netip.MustParseAddrPort
	full := envoy.Any(upstream.WaypointEndpoints(model.ServicePort{Namespace: "shop", Service: "web", Port: 80},
		[]model.Endpoint{
			{Address: at("10.244.0.1:80"), ForZones: []string{"a"}}, {Address: at("10.244.0.2:80"), ForZones: []string{"b"}},
		}))
	here := &place{}
	same, err := here.nearest(full)
	require.NoError(t, err)
	require.Same(t, full, same)

	here.learn(metadata.Pairs(names.HeaderNode, "n1", names.HeaderZone, "b"))
	got, err := here.nearest(full)
	require.NoError(t, err)
	want, err := upstream.Nearest(full, upstream.Place{Node: "n1", Zone: "b"})
	require.NoError(t, err)
	require.Equal(t, want.GetValue(), got.GetValue())
	require.NotEqual(t, full.GetValue(), got.GetValue())

	here.learn(metadata.MD{}) // an operator of a version that says nothing
	_, err = here.nearest(full)
	require.NoError(t, err)
}
