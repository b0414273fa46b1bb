// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestHinted: hints are followed where they are complete, those of nodes and of zones each by itself.
func TestHinted(t *testing.T) {
	node, zone := []string{"n1"}, []string{"a"}
	both := []model.Endpoint{{ForNodes: node, ForZones: zone}, {ForNodes: node, ForZones: zone}}
	require.Equal(t, both, Hinted(both))
	draining := append(both, model.Endpoint{Draining: true})
	require.Equal(t, draining, Hinted(draining))
	require.Equal(t, []model.Endpoint{{ForZones: zone}, {ForZones: zone}},
		Hinted([]model.Endpoint{{ForNodes: node, ForZones: zone}, {ForZones: zone}}))
	require.Equal(t, []model.Endpoint{{}, {}}, Hinted([]model.Endpoint{{ForNodes: node, ForZones: zone}, {}}))
	require.Equal(t, node, both[0].ForNodes, "what is given stays")
}
