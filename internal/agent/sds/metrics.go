// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

var (
	descIdentities = prometheus.NewDesc("fairway_agent_identities",
		"Identities that the agent holds or wants, by state: ready, failing (a certificate, but its renewal fails), "+
			"pending (no certificate yet).",
		[]string{"state"}, nil)
	descNotAfter = prometheus.NewDesc("fairway_agent_certificate_not_after_timestamp_seconds",
		"When the first of the agent's certificates expires, in Unix time; absent without certificates.", nil, nil)
	descGeneration = prometheus.NewDesc("fairway_agent_trust_bundle_generation",
		"Generation of the trust bundle that the proxy has.", nil, nil)
)

// Describe implements prometheus.Collector.
func (m *Manager) Describe(ch chan<- *prometheus.Desc) {
	ch <- descIdentities
	ch <- descNotAfter
	ch <- descGeneration
}

// Collect implements prometheus.Collector.
func (m *Manager) Collect(ch chan<- prometheus.Metric) {
	var first time.Time
	count := map[string]int{"ready": 0, "failing": 0, "pending": 0}
	for _, s := range m.statuses() {
		switch {
		case s.notAfter.IsZero():
			count["pending"]++
			continue
		case s.error != "":
			count["failing"]++
		default:
			count["ready"]++
		}
		if first.IsZero() || s.notAfter.Before(first) {
			first = s.notAfter
		}
	}
	for state, n := range count {
		ch <- prometheus.MustNewConstMetric(descIdentities, prometheus.GaugeValue, float64(n), state)
	}
	if !first.IsZero() {
		ch <- prometheus.MustNewConstMetric(descNotAfter, prometheus.GaugeValue, float64(first.Unix()))
	}
	ch <- prometheus.MustNewConstMetric(descGeneration, prometheus.GaugeValue, float64(m.currentBundle().Generation))
}
