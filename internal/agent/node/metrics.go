// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
)

// metrics of the node. Labels are few, and never pods.
type metrics struct {
	limited   prometheus.Gauge
	starts    *prometheus.HistogramVec
	installed prometheus.Gauge
}

func newMetrics(r prometheus.Registerer) *metrics {
	f := promauto.With(r)
	return &metrics{
		limited: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_agent_peers_limited", Help: "1 if the kernel of this node can count connections by peer.",
		}),
		starts: f.NewHistogramVec(prometheus.HistogramOpts{
			Name: "fairway_agent_cni_add_seconds", Help: "Time that the start of a pod waited for the agent.",
			Buckets: []float64{.005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"result"}),
		installed: f.NewGauge(prometheus.GaugeOpts{
			Name: "fairway_agent_cni_installed", Help: "1 if the CNI plugin is in place on this node.",
		}),
	}
}

// installation notes the outcome of an attempt to install the plugin; see cni.Installer.Keep.
func (m *metrics) installation(err error) {
	if err != nil {
		m.installed.Set(0)
		return
	}
	m.installed.Set(1)
}
