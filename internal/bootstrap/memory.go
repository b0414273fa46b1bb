// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	heapv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/fixed_heap/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// A proxy that comes near its container's limit of memory refuses what would make it need more, for the kernel would
// end it, and everybody's connections with it. These are the parts of the limit from which on it does what. The first
// refusals are far below the limit: headers that were let in are held a second time while they are passed on, what
// workers are just reading can't be stopped, and the heap is not all the memory there is.
const (
	giveBackFrom = 0.35 // free pages go back to the kernel
	refuseFrom   = 0.40 // requests are answered 503, and silent ones ended
	resetFrom    = 0.50 // the streams that hold most in buffers are reset, the more the nearer to resetMost
	resetMost    = 0.70
	closeFrom    = 0.60 // connections that come, or bring HTTP, are closed, and none is made
)

const (
	// heapInterval is how often the heap is looked at. HTTP/2 packs headers that repeat to next to nothing, so a flood of
	// them grows by 1 GB in a second.
	heapInterval = 50 * time.Millisecond
	// trackedFrom is the power of two from which on the buffers of a stream are a reason to reset it: 64 KiB.
	trackedFrom = 16
	// silentRequest is how long a request may be silent once requests are refused. Otherwise it may be for ever.
	silentRequest = 10 * time.Second

	monitorHeap = "envoy.resource_monitors.fixed_heap"
)

// boundMemory has the overload manager act on the heap. Where there is a choice between a load shed point and an
// overload action it is the former: workers see it at once, the other only when they are done with all that they are
// just reading.
func boundMemory(m *overloadv3.OverloadManager, memory uint64) {
	m.RefreshInterval = envoy.Duration(heapInterval)
	heap := envoy.Any(&heapv3.FixedHeapConfig{MaxHeapSizeBytes: memory})
	m.ResourceMonitors = append(m.ResourceMonitors, &overloadv3.ResourceMonitor{
		Name: monitorHeap, ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: heap},
	})
	m.BufferFactoryConfig = &overloadv3.BufferFactoryConfig{MinimumAccountToTrackPowerOfTwo: trackedFrom}
	m.Actions = []*overloadv3.OverloadAction{{
		Name: "envoy.overload_actions.shrink_heap", Triggers: heapAbove(giveBackFrom),
		TypedConfig: envoy.Any(&overloadv3.ShrinkHeapConfig{
			TimerInterval:         envoy.Duration(time.Second),
			MaxUnfreedMemoryBytes: wrapperspb.UInt64(memory / 16),
		}),
	}, {
		Name: "envoy.overload_actions.reduce_timeouts", Triggers: heapAbove(refuseFrom),
		TypedConfig: envoy.Any(&overloadv3.ScaleTimersOverloadActionConfig{
			TimerScaleFactors: []*overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer{{
				Timer: overloadv3.ScaleTimersOverloadActionConfig_HTTP_DOWNSTREAM_STREAM_IDLE,
				OverloadAdjust: &overloadv3.ScaleTimersOverloadActionConfig_ScaleTimer_MinTimeout{
					MinTimeout: envoy.Duration(silentRequest),
				},
			}},
		}),
	}, {
		Name: "envoy.overload_actions.reset_high_memory_stream",
		Triggers: []*overloadv3.Trigger{{Name: monitorHeap, TriggerOneof: &overloadv3.Trigger_Scaled{
			Scaled: &overloadv3.ScaledTrigger{ScalingThreshold: resetFrom, SaturationThreshold: resetMost},
		}}},
	}}
	m.LoadshedPoints = []*overloadv3.LoadShedPoint{
		{Name: "envoy.load_shed_points.http_connection_manager_decode_headers", Triggers: heapAbove(refuseFrom)},
		{Name: "envoy.load_shed_points.connection_pool_new_connection", Triggers: heapAbove(closeFrom)},
		{Name: "envoy.load_shed_points.tcp_listener_accept", Triggers: heapAbove(closeFrom)},
		{Name: "envoy.load_shed_points.http1_server_abort_dispatch", Triggers: heapAbove(closeFrom)},
		{Name: "envoy.load_shed_points.http2_server_go_away_and_close_on_dispatch", Triggers: heapAbove(closeFrom)},
	}
}

func heapAbove(part float64) []*overloadv3.Trigger {
	return []*overloadv3.Trigger{{
		Name:         monitorHeap,
		TriggerOneof: &overloadv3.Trigger_Threshold{Threshold: &overloadv3.ThresholdTrigger{Value: part}},
	}}
}

// allocator gives free pages back before it asks the kernel for more, once the proxy is short of memory. The heap that
// the overload manager looks at does not count them, and the kernel does.
func allocator(memory uint64) *bootstrapv3.MemoryAllocatorManager {
	if memory == 0 {
		return nil
	}
	soft := uint64(float64(memory) * giveBackFrom)
	return &bootstrapv3.MemoryAllocatorManager{SoftMemoryLimitBytes: wrapperspb.UInt64(soft)}
}
