// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import "github.com/prometheus/client_golang/prometheus"

var (
	descOpen = prometheus.NewDesc("fairway_agent_open_connections",
		"Connections to the node's pods, or through the waypoint's TCP ports, that are known to be open.", nil, nil)
	descNoRoom = prometheus.NewDesc("fairway_agent_open_connections_unknown_total",
		"Times that there was no room to remember a connection, or that one was forgotten for the sake of another.", nil, nil)
	descEnded = prometheus.NewDesc("fairway_agent_connections_ended_total",
		"Connections that were reset because policies refuse them now.", nil, nil)
)

// Describe implements prometheus.Collector.
func (k *Keeper) Describe(ch chan<- *prometheus.Desc) {
	ch <- descOpen
	ch <- descNoRoom
	ch <- descEnded
}

// Collect implements prometheus.Collector.
func (k *Keeper) Collect(ch chan<- prometheus.Metric) {
	k.mu.Lock()
	defer k.mu.Unlock()
	ch <- prometheus.MustNewConstMetric(descOpen, prometheus.GaugeValue, float64(k.room.open))
	ch <- prometheus.MustNewConstMetric(descNoRoom, prometheus.CounterValue, float64(k.noRoom))
	ch <- prometheus.MustNewConstMetric(descEnded, prometheus.CounterValue, float64(k.ended))
}
