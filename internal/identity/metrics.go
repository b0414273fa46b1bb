// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import "github.com/prometheus/client_golang/prometheus"

var (
	descCANotAfter = prometheus.NewDesc("fairway_ca_not_after_timestamp_seconds",
		"When the CA that signs expires, root included, in Unix time; absent without a CA.", []string{"origin"}, nil)
	descRoots = prometheus.NewDesc("fairway_trust_bundle_roots",
		"Roots in the trust bundle: more than one while a rotation lasts.", nil, nil)
	descBundle = prometheus.NewDesc("fairway_trust_bundle_generation",
		"Generation of the trust bundle.", nil, nil)
	descSigned = prometheus.NewDesc("fairway_certificates_signed_total",
		"Certificates that this replica has signed for proxies.", nil, nil)
)

// Describe implements prometheus.Collector.
func (a *Authority) Describe(ch chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descCANotAfter, descRoots, descBundle, descSigned} {
		ch <- d
	}
}

// Collect implements prometheus.Collector.
func (a *Authority) Collect(ch chan<- prometheus.Metric) {
	if s := a.state.Load(); s != nil && s.Active != nil {
		ch <- prometheus.MustNewConstMetric(descCANotAfter, prometheus.GaugeValue, float64(s.Active.NotAfter().Unix()),
			s.Active.Origin)
	}
	b := a.Bundle()
	ch <- prometheus.MustNewConstMetric(descRoots, prometheus.GaugeValue, float64(len(b.Roots)))
	ch <- prometheus.MustNewConstMetric(descBundle, prometheus.GaugeValue, float64(b.Generation))
	ch <- prometheus.MustNewConstMetric(descSigned, prometheus.CounterValue, float64(a.signed.Load()))
}
