// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of a Server. Labels come from small fixed sets, never from what a client sends.
type metrics struct {
	connected *prometheus.GaugeVec
	refused   *prometheus.CounterVec
	responses *prometheus.CounterVec
	nacks     *prometheus.CounterVec
	bytes     *prometheus.CounterVec
	push      *prometheus.HistogramVec
}

// Stages of a push, as values of the label "stage".
const (
	stageSent  = "sent"
	stageAcked = "acked"
)

// newMetrics registers with reg; with a nil reg the metrics are kept and not exposed. Proxies of the given kinds are
// counted from zero: a server that has none says so.
func newMetrics(reg prometheus.Registerer, kinds []string) *metrics {
	f := promauto.With(reg)
	byType := []string{"kind", "type"}
	m := &metrics{
		connected: f.NewGaugeVec(prometheus.GaugeOpts{
			Name: "fairway_xds_connected_proxies", Help: "Connected xDS streams by kind of scope.",
		}, []string{"kind"}),
		refused: f.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_xds_refused_streams_total", Help: "Streams refused, by reason.",
		}, []string{"reason"}),
		responses: f.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_xds_responses_total", Help: "Delta discovery responses sent.",
		}, byType),
		nacks: f.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_xds_nacks_total", Help: "Responses that a proxy rejected.",
		}, byType),
		bytes: f.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_xds_sent_bytes_total", Help: "Bytes of resources sent.",
		}, byType),
		push: f.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "fairway_xds_push_seconds",
			Help:    "Time from a change in the cache until it was sent, and until it was acknowledged.",
			Buckets: prometheus.ExponentialBuckets(0.00025, 2, 17),
		}, []string{"stage", "type"}),
	}
	for _, kind := range kinds {
		m.connected.WithLabelValues(kind)
	}
	return m
}

func (m *metrics) observePush(stage, typeURL string, since, now time.Time) {
	if !since.IsZero() {
		m.push.WithLabelValues(stage, typeLabel(typeURL)).Observe(now.Sub(since).Seconds())
	}
}

// typeLabel maps a type URL, which a client chooses, to a bounded set.
func typeLabel(typeURL string) string {
	switch typeURL {
	case TypeCluster:
		return "cds"
	case TypeEndpoint:
		return "eds"
	case TypeListener:
		return "lds"
	case TypeRoute:
		return "rds"
	case TypeScopedRoute:
		return "srds"
	case typeVirtualHost:
		return "vhds"
	case TypeSecret:
		return "sds"
	case TypeExtension:
		return "ecds"
	case TypeRuntime:
		return "rtds"
	}
	return "other"
}
