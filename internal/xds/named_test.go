// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
)

// TestExtensionsByName: what has its content in common with others is on the wire what it would be by itself, and the
// content is in memory once.
func TestExtensionsByName(t *testing.T) {
	config := &anypb.Any{TypeUrl: "type.googleapis.com/google.protobuf.StringValue", Value: []byte{0x0a, 1, 'x'}}
	e, err := NewExtension(config)
	require.NoError(t, err)
	for _, name := range []string{"a", "authorization/shop/web-0"} {
		r, err := e.Named(name)
		require.NoError(t, err)
		alone, err := NewResource(name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: config})
		require.NoError(t, err)
		require.Equal(t, alone.Any().GetValue(), r.Any().GetValue())
		require.Equal(t, ID{TypeExtension, name}, r.id())
		require.Equal(t, alone.size(), r.size())
		wire := r.wire()
		require.Equal(t, name, wire.GetName())
		require.Equal(t, r.Version(), wire.GetVersion())
		require.Equal(t, alone.Any().GetValue(), wire.GetResource().GetValue())
		require.Same(t, e, r.extension)
	}
	one, err := e.Named("one")
	require.NoError(t, err)
	same, err := NewExtension(&anypb.Any{TypeUrl: config.GetTypeUrl(), Value: []byte{0x0a, 1, 'x'}})
	require.NoError(t, err)
	require.True(t, e.Equal(same))
	again, err := same.Named("one")
	require.NoError(t, err)
	require.True(t, one.Equal(again))
	two, err := e.Named("two")
	require.NoError(t, err)
	require.False(t, one.Equal(two))

	other, err := NewExtension(&anypb.Any{TypeUrl: config.GetTypeUrl(), Value: []byte{0x0a, 1, 'y'}})
	require.NoError(t, err)
	require.False(t, e.Equal(other))
	require.False(t, e.Equal(nil))
	require.NotEqual(t, e.version, other.version)
	for _, bad := range []string{"", Wildcard, "\xff"} {
		_, err := e.Named(bad)
		require.Error(t, err, bad)
	}
}
