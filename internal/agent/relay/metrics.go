// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

type metrics struct {
	connected prometheus.Gauge
	since     prometheus.Gauge
	breaks    prometheus.Counter
	received  prometheus.Counter
	nacks     prometheus.Counter
	onDemand  prometheus.Gauge
	waiting   prometheus.Gauge
	refused   prometheus.Counter
	takenBack prometheus.Counter
	forgotten prometheus.Gauge

	endpoints, endpointsOut prometheus.Gauge
	contexts                prometheus.Gauge
	renewed                 prometheus.Counter
}

// newMetrics registers with reg; with a nil reg the metrics are kept and not exposed.
func newMetrics(reg prometheus.Registerer) *metrics {
	f := promauto.With(reg)
	return &metrics{
		connected: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_connected", Help: "1 while the agent has its xDS stream to the operator.",
		}),
		since: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_connection_changed_timestamp_seconds",
			Help: "When fairway_relay_connected last changed, in Unix time.",
		}),
		breaks: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_relay_stream_breaks_total", Help: "Streams to the operator that broke, and attempts that failed.",
		}),
		received: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_relay_received_resources_total", Help: "Resources received from the operator.",
		}),
		nacks: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_relay_nacks_total", Help: "Rejections by Envoy that were passed on to the operator.",
		}),
		onDemand: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_on_demand_clusters",
			Help: "Clusters that Envoy has because it asked for them by name: on a node, addresses that its pods dialled.",
		}),
		waiting: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_clusters_left_out",
			Help: "Clusters that Envoy asked for by name but doesn't have, because it is at its limit.",
		}),
		takenBack: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_relay_clusters_taken_back_total",
			Help: "Clusters that were taken back from Envoy to make room for others.",
		}),
		forgotten: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_forgotten_clusters",
			Help: "Addresses that lead nowhere and that nobody dialled for an hour: Envoy keeps no more of them than the name.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_relay_refused_clusters_total", Help: "Clusters beyond its limit that Envoy asked for and didn't get.",
		}),
		contexts: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_contexts",
			Help: "Certificate contexts that a node's Envoy has, as known at the last look: of each cluster, one for each " +
				"further identity that dialled it.",
		}),
		renewed: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_relay_renewed_clusters_total",
			Help: "Clusters that a node's Envoy was given anew, to forget the certificate contexts in them.",
		}),
		endpoints: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_endpoints", Help: "Endpoints that a node's Envoy holds beyond those that any cluster may have.",
		}),
		endpointsOut: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_relay_endpoints_left_out",
			Help: "Endpoints that a node's Envoy was not given, because it is at its limit.",
		}),
	}
}

func (m *metrics) setConnected(s Status) {
	m.connected.Set(0)
	if s.Connected {
		m.connected.Set(1)
	}
	m.since.Set(float64(s.Since.Unix()))
}
