// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"errors"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/fairway-mesh/fairway/internal/identity"
)

// metrics count what becomes of requests.
type metrics struct {
	answers *prometheus.CounterVec
	seconds prometheus.Histogram
}

func newMetrics(r prometheus.Registerer) *metrics {
	return &metrics{
		answers: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_certificate_requests_total",
			Help: "CertificateRequests that this replica wanted of cert-manager, by result: Issued, or the reason why not.",
		}, []string{"result"}),
		seconds: promauto.With(r).NewHistogram(prometheus.HistogramOpts{
			Name:    "fairway_certificate_request_duration_seconds",
			Help:    "How long cert-manager took for a CertificateRequest, whatever became of it.",
			Buckets: []float64{0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 45},
		}),
	}
}

// done counts a request; one that was never made took no time.
func (m *metrics) done(err error, took time.Duration) {
	result := "Issued"
	var failure *identity.IssueError
	switch {
	case errors.As(err, &failure):
		result = string(failure.Reason)
	case err != nil:
		result = string(identity.IssueUnavailable)
	}
	m.answers.WithLabelValues(result).Inc()
	if took > 0 {
		m.seconds.Observe(took.Seconds())
	}
}
