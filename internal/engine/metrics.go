// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics tell where the time of a change goes before the xDS server has it, which tells the rest.
type metrics struct{ seconds *prometheus.HistogramVec }

// Stages of a change, as values of the label "stage": until it is taken in, and from then until all that follows from
// it is derived.
const (
	stageQueued  = "queued"
	stageDerived = "derived"
)

// newMetrics registers with reg; with a nil reg the metrics are kept and not exposed.
func newMetrics(reg prometheus.Registerer) *metrics {
	return &metrics{promauto.With(reg).NewHistogramVec(prometheus.HistogramOpts{
		Name:    "fairway_engine_seconds",
		Help:    "Time of a change in the operator: in the queue, and until what follows from it is derived.",
		Buckets: prometheus.ExponentialBuckets(0.00025, 2, 17),
	}, []string{"stage"})}
}

func (m *metrics) observe(stage string, since, now time.Time) {
	m.seconds.WithLabelValues(stage).Observe(now.Sub(since).Seconds())
}
