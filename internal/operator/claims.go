// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/fairway-mesh/fairway/internal/ingest"
)

// claims keeps the pods' claims to an address that don't count, as the engine tells of them: for the Mesh's status, and
// as a metric of every replica.
type claims struct {
	changed func()
	gauge   prometheus.Gauge

	mu      sync.Mutex
	refused map[netip.Addr][]ingest.RefusedClaim
}

func newClaims(changed func(), r prometheus.Registerer) *claims {
	return &claims{
		changed: changed, refused: map[netip.Addr][]ingest.RefusedClaim{},
		gauge: promauto.With(r).NewGauge(prometheus.GaugeOpts{
			Name: "fairway_refused_address_claims",
			Help: "Claims of pods to an address that another pod has, or that is outside of their node's ranges.",
		}),
	}
}

func (c *claims) set(addr netip.Addr, refused []ingest.RefusedClaim) {
	c.mu.Lock()
	before := len(c.refused[addr])
	delete(c.refused, addr)
	if len(refused) > 0 {
		c.refused[addr] = refused
	}
	c.mu.Unlock()
	c.gauge.Add(float64(len(refused) - before))
	if len(refused) > 0 || before > 0 {
		c.changed()
	}
}

// list is in order of pods and addresses.
func (c *claims) list() []ingest.RefusedClaim {
	c.mu.Lock()
	defer c.mu.Unlock()
	var out []ingest.RefusedClaim
	for _, refused := range c.refused {
		out = append(out, refused...)
	}
	slices.SortFunc(out, func(a, b ingest.RefusedClaim) int {
		return cmp.Or(cmp.Compare(a.Pod.String(), b.Pod.String()), a.Address.Compare(b.Address))
	})
	return out
}
