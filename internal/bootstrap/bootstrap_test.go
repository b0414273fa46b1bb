// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"math"
	"slices"
	"testing"

	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

func TestEnvoyAcceptsTheBootstrap(t *testing.T) {
	binary := xdstest.Binary(t)
	for name, o := range map[string]Options{
		"node":     {ID: "node/n1", Cluster: "node", Memory: 2 << 30},
		"waypoint": {ID: "shop/waypoint-0", Cluster: "waypoint/shop/waypoint", WildcardClusters: true},
	} {
		t.Run(name, func(t *testing.T) {
			config, err := Marshal(Bootstrap(o))
			require.NoError(t, err)
			require.NotContains(t, xdstest.Validate(t, binary, config), "warning", "Envoy has nothing to complain about")
		})
	}
}

func TestDefaults(t *testing.T) {
	b := Bootstrap(Options{})
	require.Equal(t, names.AdminSocket, b.GetAdmin().GetAddress().GetPipe().GetPath())
	require.Equal(t, hangTimeout, b.GetWatchdogs().GetWorkerWatchdog().GetKillTimeout().AsDuration())
	require.Equal(t, hangTimeout, b.GetWatchdogs().GetMainThreadWatchdog().GetKillTimeout().AsDuration())
	xds := b.GetStaticResources().GetClusters()[0].GetLoadAssignment().GetEndpoints()[0].GetLbEndpoints()[0]
	require.Equal(t, names.XDSSocket, xds.GetEndpoint().GetAddress().GetPipe().GetPath())
	require.Nil(t, b.GetDynamicResources().GetCdsConfig(), "clusters come on demand unless asked for")
	require.NotNil(t, Bootstrap(Options{WildcardClusters: true}).GetDynamicResources().GetCdsConfig())
}

func TestMemory(t *testing.T) {
	b := Bootstrap(Options{})
	require.Nil(t, b.GetMemoryAllocatorManager())
	require.Len(t, b.GetOverloadManager().GetResourceMonitors(), 1, "what is unknown can't be watched")
	require.Empty(t, b.GetOverloadManager().GetActions())
	require.Empty(t, b.GetOverloadManager().GetLoadshedPoints())

	const memory = 1 << 30
	b = Bootstrap(Options{Memory: memory})
	m := b.GetOverloadManager()
	require.Len(t, m.GetResourceMonitors(), 2)
	heap := &heapv3.FixedHeapConfig{}
	require.NoError(t, m.GetResourceMonitors()[1].GetTypedConfig().UnmarshalTo(heap))
	require.EqualValues(t, memory, heap.GetMaxHeapSizeBytes())
	require.Less(t, b.GetMemoryAllocatorManager().GetSoftMemoryLimitBytes().GetValue(), uint64(memory/2))
	parts := []float64{giveBackFrom, refuseFrom, resetFrom, closeFrom, resetMost}
	require.True(t, slices.IsSorted(parts), "what hurts less comes first")
	require.Less(t, resetMost, 1.0)
}

func TestConnectionsFitTheLimitOfOpenFiles(t *testing.T) {
	for openFiles, want := range map[uint64]uint64{
		4096: 1536, 20_000: 7500, 524_288: 196_608, 1 << 20: 393_216, 1 << 30: DefaultMaxConnections,
		math.MaxUint64: DefaultMaxConnections,
	} {
		have, err := ConnectionsWithin(openFiles)
		require.NoError(t, err)
		require.Equal(t, want, have)
		require.LessOrEqual(t, have*2, openFiles/4*3, "those taken and those made")
	}
	for _, openFiles := range []uint64{0, 1024, 4095} {
		_, err := ConnectionsWithin(openFiles)
		require.ErrorContains(t, err, "RLIMIT_NOFILE")
		require.ErrorContains(t, err, "LimitNOFILE")
	}
}
