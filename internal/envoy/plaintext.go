// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	statsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/stats/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// StatsPrefix is how the statistics begin that are the mesh's own and not Envoy's.
const StatsPrefix = "fairway."

// mostPlaintext bounds the destinations that are counted for one pod, since pods choose what they dial. Those that
// nothing happened to for a while go (bootstrap).
const mostPlaintext = 200

// CountPlaintext counts connections of a namespace's pods that were made in plain text, by destination, when they end.
// Those that reached nobody have sent nothing. The labels are a literal and names of clusters, which the mesh makes:
// nothing of what a peer says. What neighbours have never leaves the node's kernel, and isn't counted.
func CountPlaintext(namespace string, neighbours bool) *accesslogv3.AccessLog {
	plaintext := `has(upstream.local_address) && !has(upstream.uri_san_peer_certificate)`
	if neighbours {
		plaintext += ` && !(` + toNeighbour + `)`
	}
	return count(mostPlaintext, plaintext, "plaintext_total",
		&statsv3.Config_Tag{Name: "source_namespace", ValueFormat: Literal(namespace)},
		&statsv3.Config_Tag{Name: "destination", ValueFormat: "%UPSTREAM_CLUSTER%"})
}

// count connections that an expression holds for when they end, with no more than so many sets of tags.
func count(most uint32, expression, name string, tags ...*statsv3.Config_Tag) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name: "envoy.access_loggers.stats",
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
			ExtensionFilter: &accesslogv3.ExtensionFilter{
				Name: "envoy.access_loggers.extension_filters.cel",
				ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: Any(&celv3.ExpressionFilter{
					Expression: expression,
				})},
			},
		}},
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: Any(&statsv3.Config{
			// One scope for each listener. With a sharing_name they would have one together, and Envoy 1.40 crashes
			// when it ends.
			StatsScope: &typev3.Scope{
				Prefix: "fairway", EnableEviction: true,
				MaxCounters: UInt32(most), MaxGauges: UInt32(0), MaxHistograms: UInt32(0),
			},
			Counters: []*statsv3.Config_Counter{{
				Stat: &statsv3.Config_Stat{Name: name, Tags: tags}, ValueFixed: wrapperspb.UInt64(1),
			}},
		})},
	}
}
