// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bootstrap

import (
	"fmt"
	"slices"
	"time"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// kept are the only statistics that a proxy makes. Envoy otherwise makes more than a hundred per cluster, which costs
// memory with every address and seconds per update with thousands of clusters (envoyproxy/envoy issue 19946).
var kept = struct{ prefixes, suffixes, expressions []string }{
	prefixes: []string{
		envoy.StatsPrefix,
		"server.",
		"listener_manager.",
		"cluster_manager.",
		"overload.",
		"control_plane.",
		"connection_limit.mtls.",
		"listener_local_ratelimit.mtls.",
		"tcp.mtls.",
		"http.service.",
		"tcp.outbound.",
		"tcp.inbound.",
	},
	// Per cluster, just what tells working from failing and names the size of it; of connections, see below.
	suffixes: []string{
		".upstream_rq_time",
		".upstream_rq_2xx",
		".upstream_rq_4xx",
		".upstream_rq_5xx",
		".upstream_rq_retry",
		".upstream_rq_timeout",
		".rbac.denied",
		".rbac.shadow_denied",
	},
	// Of policies by their names.
	expressions: []string{policyDenied},
}

// statsEviction is after what time statistics go that have labels of the mesh's own and that nothing happened to. It is
// far longer than what lies between two looks of a Prometheus, which would miss what a counter that comes anew counts
// first.
const statsEviction = time.Hour

// policyDenied finds the name of a policy in those of its statistics.
const policyDenied = `.*\.rbac\.policy\.((.+)\.)(?:shadow_)?denied`

func stats() *metricsv3.StatsConfig {
	var patterns []*matcherv3.StringMatcher
	for _, p := range kept.prefixes {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: p}})
	}
	suffixes := slices.Clone(kept.suffixes)
	for _, s := range envoy.StatsOfConnections() {
		suffixes = append(suffixes, "."+s)
	}
	for _, s := range suffixes {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: s}})
	}
	for _, e := range kept.expressions {
		patterns = append(patterns, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
			SafeRegex: &matcherv3.RegexMatcher{Regex: e},
		}})
	}
	return &metricsv3.StatsConfig{
		StatsTags: []*metricsv3.TagSpecifier{{
			TagName: "policy", TagValue: &metricsv3.TagSpecifier_Regex{Regex: policyDenied + "$"},
		}},
		StatsMatcher: &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{
			InclusionList: &matcherv3.ListStringMatcher{Patterns: patterns},
		}},
	}
}

const (
	// DefaultMaxConnections is enough for any node, and what its memory bears.
	DefaultMaxConnections = 500_000
	// leastOpenFiles is what a proxy needs for its listeners, and to be of use.
	leastOpenFiles = 4096
)

// ConnectionsWithin is how many connections a proxy may take, and as many may it make, where it may open so many files:
// once no socket can be had, it serves nobody. A quarter is left for the sockets that listen (some for each pod of a
// node), for connections to applications that wait for their next request, and for files.
func ConnectionsWithin(openFiles uint64) (uint64, error) {
	if openFiles < leastOpenFiles {
		return 0, fmt.Errorf("the proxy may open %d files at a time (RLIMIT_NOFILE) but needs at least %d: "+
			"raise the limit of the container runtime, such as LimitNOFILE of its systemd unit", openFiles, leastOpenFiles)
	}
	return min(openFiles/8*3, DefaultMaxConnections), nil
}

// overload bounds what clients can make the proxy hold: connections always, memory where it is known what there is.
func overload(maxConnections, memory uint64) *overloadv3.OverloadManager {
	m := &overloadv3.OverloadManager{
		RefreshInterval: envoy.Duration(time.Second),
		ResourceMonitors: []*overloadv3.ResourceMonitor{{
			Name: "envoy.resource_monitors.global_downstream_max_connections",
			ConfigType: &overloadv3.ResourceMonitor_TypedConfig{
				TypedConfig: envoy.Any(&connectionsv3.DownstreamConnectionsConfig{
					MaxActiveDownstreamConnections: int64(min(maxConnections, 1<<62)),
				}),
			},
		}},
	}
	if memory > 0 {
		boundMemory(m, memory)
	}
	return m
}
