// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestOneEndpointPerProxyAddress: of two ports of one pod, that which serves is taken before that which drains, by
// every kind of proxy, and priorities begin at 0 all the same.
func TestOneEndpointPerProxyAddress(t *testing.T) {
	both := []model.Endpoint{
		{Address: at("10.244.0.3:8080"), MTLS: true, Identity: ids[0], Draining: true},
		{Address: at("10.244.0.3:8081"), MTLS: true, Identity: ids[0]},
	}
	for _, a := range []*endpointv3.ClusterLoadAssignment{
		WaypointEndpoints(web, both), NodeEndpoints("node/shop/web/80", both),
	} {
		invariants(t, a)
		require.Len(t, a.GetEndpoints(), 1)
		require.Len(t, a.GetEndpoints()[0].GetLbEndpoints(), 1)
		require.Equal(t, "8081", a.GetEndpoints()[0].GetLbEndpoints()[0].GetEndpoint().GetHostname())
	}
}
