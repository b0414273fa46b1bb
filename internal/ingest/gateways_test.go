// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// A Gateway whose name no Service can bear is not accepted: the API lets it have dots, begin with a digit, and be long.
func TestNamesOfWaypoints(t *testing.T) {
	for name, ok := range map[string]bool{
		"waypoint": true, "a-1": true, strings.Repeat("a", 63): true,
		"my.waypoint": false, "1st": false, strings.Repeat("a", 64): false,
	} {
		g := &gwv1.Gateway{ObjectMeta: metav1.ObjectMeta{Name: name}}
		g.Spec.Listeners = []gwv1.Listener{{Name: "mesh", Port: names.PortHBONE, Protocol: ProtocolHBONE}}
		v := JudgeWaypoint(g)
		require.Equal(t, ok, v == nil, name)
		if !ok {
			require.Equal(t, string(gwv1.GatewayReasonInvalid), v.Reason)
		}
	}
}
