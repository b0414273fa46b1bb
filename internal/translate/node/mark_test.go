// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// TestMarked has clusters as operators of this version and of earlier ones make them.
func TestMarked(t *testing.T) {
	want := append([]*corev3.SocketOption{
		envoy.Mark(int64(testMark.Mark())), envoy.Priority(int64(testMark.Priority())),
		envoy.ReuseAddress(),
	}, envoy.RoomForEnds()...)
	for _, kind := range []model.DestinationKind{
		model.DestinationService, model.DestinationWaypoint, model.DestinationWorkload, model.DestinationPassthrough,
		model.DestinationRefused,
	} {
		sent := upstream.Destination(model.Destination{Address: vip, Kind: kind, Port: web, Identities: ids})
		packed, err := anypb.New(sent)
		require.NoError(t, err)
		adapted, err := Marked(packed, testMark)
		require.NoError(t, err)
		have := &clusterv3.Cluster{}
		require.NoError(t, adapted.UnmarshalTo(have))
		if bind := sent.GetUpstreamBindConfig(); bind != nil {
			require.Equal(t, int64(names.MarkProxy), bind.GetSocketOptions()[0].GetIntValue(),
				"agents of earlier versions expect it")
			bind.SocketOptions = want
		} else {
			require.Equal(t, model.DestinationRefused, kind, "what connects to something is marked")
		}
		require.True(t, proto.Equal(sent, have), "nothing else is changed")
		again, err := Marked(adapted, testMark)
		require.NoError(t, err)
		require.True(t, proto.Equal(adapted, again))
	}
	_, err := Marked(&anypb.Any{
		TypeUrl: "type.googleapis.com/envoy.config.cluster.v3.Cluster",
		Value:   []byte("no cluster"),
	}, testMark)
	require.Error(t, err)
}
