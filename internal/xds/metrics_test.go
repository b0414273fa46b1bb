// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
)

// TestAServerWithoutProxiesSaysZero: of several replicas one may serve none, which is no reason for its metric to be
// missing.
func TestAServerWithoutProxiesSaysZero(t *testing.T) {
	reg := prometheus.NewRegistry()
	NewServer(Options{Cache: NewCache(), Registerer: reg, Kinds: []string{"node", "waypoint"}})
	families, err := reg.Gather()
	require.NoError(t, err)
	require.Len(t, families, 1)
	require.Equal(t, "fairway_xds_connected_proxies", families[0].GetName())
	connected := map[string]float64{}
	for _, m := range families[0].GetMetric() {
		connected[m.GetLabel()[0].GetValue()] = m.GetGauge().GetValue()
	}
	require.Equal(t, map[string]float64{"node": 0, "waypoint": 0}, connected)
}
