// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"testing"
	"time"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/local_ratelimit/v3"
	connectionlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/connection_limit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
)

// TestConnectionsOfPeers: connections to a waypoint are counted, and there is an end to them. The limits are lowered,
// so that the test needn't reach them.
func TestConnectionsOfPeers(t *testing.T) {
	const most = 3
	for what, lower := range map[string]func(*testing.T, *listenerv3.Listener){
		"open": func(t *testing.T, l *listenerv3.Listener) {
			filter := l.GetFilterChains()[0].GetFilters()[0]
			limit := &connectionlimitv3.ConnectionLimit{}
			require.NoError(t, filter.GetTypedConfig().UnmarshalTo(limit))
			require.LessOrEqual(t, limit.GetMaxConnections().GetValue(), uint64(bootstrap.DefaultMaxConnections/16))
			limit.MaxConnections = wrapperspb.UInt64(most)
			filter.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: envoy.Any(limit)}
		},
		"new in a second": func(t *testing.T, l *listenerv3.Listener) {
			filter := l.GetListenerFilters()[0]
			limit := &ratelimitv3.LocalRateLimit{}
			require.NoError(t, filter.GetTypedConfig().UnmarshalTo(limit))
			silent := float64(limit.GetTokenBucket().GetMaxTokens()) * l.GetListenerFiltersTimeout().AsDuration().Seconds()
			require.LessOrEqual(t, silent, float64(bootstrap.DefaultMaxConnections/16))
			limit.TokenBucket = &typev3.TokenBucket{MaxTokens: most, FillInterval: envoy.Duration(time.Hour)}
			filter.ConfigType = &listenerv3.ListenerFilter_TypedConfig{TypedConfig: envoy.Any(limit)}
		},
	} {
		t.Run(what, func(t *testing.T) {
			s := newShop(t)
			dialled := s.serve(web, true, nil)
			plenty, few := waypoint.MTLSListener(s.model()), waypoint.MTLSListener(s.model())
			lower(t, few)
			listens := func(l *listenerv3.Listener) {
				u := resource(t, names.ListenerMTLS, l)
				s.apply(u)
				s.acknowledged(u)
			}
			served := func() bool {
				c, err := s.caller(clientID).dial(t.Context(), dialled)
				return err == nil && asks(c) == nil
			}
			listens(few)
			eventually.True(s.t, "a refusal", func() bool { // Envoy acknowledges a listener before it has its sockets
				for range most {
					if c, err := s.caller(clientID).dial(t.Context(), dialled); err == nil {
						t.Cleanup(func() { _ = c.Close() })
					}
				}
				return !served()
			})
			listens(plenty)
			eventually.True(s.t, "a caller to be served again", served)
		})
	}
}
