// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"github.com/prometheus/client_golang/prometheus"
)

// metrics of the enrolment. Labels are few: states and causes, never pods.
type metrics struct {
	failures  *prometheus.CounterVec
	repairs   prometheus.Counter
	refused   prometheus.Counter
	peers     prometheus.Counter
	limited   prometheus.Gauge
	starts    *prometheus.HistogramVec
	installed prometheus.Gauge
}

var podsDesc = prometheus.NewDesc("fairway_agent_pods", "Pods of this node by state of their capture.", []string{"state"}, nil)

func newMetrics(r prometheus.Registerer, pods *registry) *metrics {
	m := &metrics{
		failures: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_agent_capture_failures_total", Help: "Failed attempts to capture a pod, by cause.",
		}, []string{"cause"}),
		repairs: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_capture_repairs_total", Help: "Times that changed rules of a captured pod were put back.",
		}),
		refused: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_share_refused_total",
			Help: "Connections that were refused because their pod had used up its share of addresses.",
		}),
		peers: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_peer_refused_total",
			Help: "Connections to pods that were refused because their caller had as many as one peer may.",
		}),
		limited: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_agent_peers_limited", Help: "1 if the kernel of this node can count connections by peer.",
		}),
		starts: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fairway_agent_cni_add_seconds", Help: "Time that the start of a pod waited for the agent.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"result"}),
		installed: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_agent_cni_installed", Help: "1 if the CNI plugin is in place on this node.",
		}),
	}
	if r != nil {
		r.MustRegister(m.failures, m.repairs, m.refused, m.peers, m.limited, m.starts, m.installed, podsCollector{pods})
	}
	return m
}

// installation notes the outcome of an attempt to install the plugin; see cni.Installer.Keep.
func (m *metrics) installation(err error) {
	if err != nil {
		m.installed.Set(0)
		return
	}
	m.installed.Set(1)
}

// podsCollector counts pods by state when it is asked.
type podsCollector struct{ pods *registry }

// Describe implements prometheus.Collector.
func (c podsCollector) Describe(ch chan<- *prometheus.Desc) { ch <- podsDesc }

// Collect implements prometheus.Collector.
func (c podsCollector) Collect(ch chan<- prometheus.Metric) {
	count := map[State]int{}
	for _, s := range c.pods.snapshot() {
		count[s.State]++
	}
	for _, s := range States {
		ch <- prometheus.MustNewConstMetric(podsDesc, prometheus.GaugeValue, float64(count[s]), string(s))
	}
}
