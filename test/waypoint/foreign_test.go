// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestEndpointsOfOthersLeaveRoom: as many endpoints of other namespaces as a waypoint is told of leave most of its
// memory to its owner.
func TestEndpointsOfOthersLeaveRoom(t *testing.T) {
	const each, limit = ingest.MostEndpointsOfForeign, 2 << 30
	w := newWorld(t)
	before, n := w.peak(), 0
	for namespace := range ingest.MostEndpointsOfForeigns / each {
		var all []model.Endpoint
		for range each {
			n++
			all = append(all, model.Endpoint{Address: netip.AddrPortFrom(
				netip.AddrFrom4([4]byte{11, byte(n >> 16), byte(n >> 8), byte(n)}), 8080)})
		}
		w.backend(model.ServicePort{Namespace: fmt.Sprint("tenant-", namespace), Service: "x", Port: 80}, model.ProtocolHTTP,
			all...)
	}
	cost := w.peak() - before
	t.Logf("%d endpoints: %d MiB, before %d MiB", n, cost>>20, before>>20)
	require.Less(t, cost, limit/4)
}
