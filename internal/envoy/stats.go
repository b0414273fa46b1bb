// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/config/metrics/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// StatsOfConnections are the statistics of a cluster that are kept whatever it speaks.
func StatsOfConnections() []string {
	return []string{
		"upstream_cx_total",
		"upstream_cx_active",
		"upstream_cx_connect_fail",
		"upstream_rq_total",
		"upstream_rq_active",
		"membership_healthy",
		"ssl.fail_verify_san",
		"ssl.fail_verify_error",
		"ssl.connection_error",
		"update_rejected",
	}
}

// OnlyStatsOfConnections has a cluster whose statistics have a name of their own make these and no others. The proxy's
// own rules (bootstrap) say the same, but Envoy remembers for each cluster every name that they reject, 7 KB in all. It
// remembers none where there are prefixes alone, each up to a dot: then it compares parts of names, and a whole name
// begins with itself.
func OnlyStatsOfConnections(statName string) *metricsv3.StatsMatcher {
	list := &matcherv3.ListStringMatcher{}
	for _, s := range StatsOfConnections() {
		// Envoy makes the same of colons.
		prefix := "cluster." + strings.ReplaceAll(statName, ":", "_") + "." + s + "."
		list.Patterns = append(list.Patterns, &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix},
		})
	}
	return &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_InclusionList{InclusionList: list}}
}

// NoStats has a cluster make none.
func NoStats() *metricsv3.StatsMatcher {
	return &metricsv3.StatsMatcher{StatsMatcher: &metricsv3.StatsMatcher_RejectAll{RejectAll: true}}
}
