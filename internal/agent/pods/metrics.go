// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import "github.com/prometheus/client_golang/prometheus"

var podsDesc = prometheus.NewDesc("fairway_agent_pods", "Pods of this node by state of their capture.", []string{
	"state",
}, nil)

// podsCollector counts pods by state when it is asked.
type podsCollector struct{ pods *statuses }

// Describe implements prometheus.Collector.
func (c podsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc }

// Collect implements prometheus.Collector.
func (c podsCollector) Collect(ch chan<- prometheus.Metric) {
	count := map[State]int{}
	for _, s := range c.pods.snapshot() {
		count[s.State]++
	}
	for _, s := range states {
		ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(count[s]), string(s))
	}
}
