// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestManyIdentitiesCostLittle: what a Service with many service accounts costs each waypoint that has it for a backend
// is bounded. To Envoy, each way to reach an endpoint by mTLS is a TLS context of its own, also if nobody uses it.
func TestManyIdentitiesCostLittle(t *testing.T) {
	u := model.Upstream{ServicePort: model.ServicePort{Namespace: "shop", Service: "web", Port: 80}}
	for n := range 100 {
		u.Identities = append(u.Identities, names.SPIFFEID(trustDomain, "shop", fmt.Sprintf("account-%02d", n)))
		c := ServicePort(u, names.SPIFFEID(trustDomain, "shop", "waypoint"), model.HeaderLimits{})
		require.NoError(t, envoy.Check(c))
		require.LessOrEqual(t, len(c.GetTransportSocketMatches()), 1+mostTold)
	}
}
