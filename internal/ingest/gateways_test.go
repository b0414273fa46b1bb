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
		g.Spec.Listeners = []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: ProtocolMTLS}}
		v := JudgeWaypoint(g)
		require.Equal(t, ok, v == nil, name)
		if !ok {
			require.Equal(t, string(gwv1.GatewayReasonInvalid), v.Reason)
		}
	}
}

// Gateways that were written for earlier versions go on being waypoints.
func TestProtocolsOfWaypoints(t *testing.T) {
	for protocol, ok := range map[gwv1.ProtocolType]bool{
		"fairway.dev/MTLS": true, "fairway.dev/HBONE": true, "HBONE": true,
		"MTLS": false, gwv1.TLSProtocolType: false, gwv1.HTTPProtocolType: false, "": false,
	} {
		g := &gwv1.Gateway{}
		g.Spec.Listeners = []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: protocol}}
		verdicts := JudgeListeners(g)
		require.Len(t, verdicts, 1)
		require.Equal(t, ok, verdicts[0] == nil, protocol)
		if !ok {
			require.Equal(t, string(gwv1.ListenerReasonUnsupportedProtocol), verdicts[0].Reason)
			require.Contains(t, verdicts[0].Message, "use fairway.dev/MTLS")
		}
	}
}
