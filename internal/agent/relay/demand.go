// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"sync"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// demand bounds the clusters that Envoy asks for by name. On a node each address that a pod dials is one, and Envoy
// keeps it for good: without a bound, one pod that dials every address fills the memory of a proxy that all pods of the
// node share. A cluster beyond the bound does not exist, so that its connection fails at once, and all others go on.
//
// Its lock is a leaf: the server asks with locks held that the relay takes after its own.
type demand struct {
	limit   int
	log     logr.Logger
	held    prometheus.Gauge
	refused prometheus.Counter

	mu     sync.Mutex
	names  map[string]struct{}
	cost   int // of those with endpoints, in halves of what a name without costs
	warned bool
}

// allowed implements xds.Options.Allowed.
func (d *demand) allowed(_ xds.Proxy, id xds.ID) bool {
	if id.TypeURL != xds.TypeCluster || id.Name == xds.Wildcard {
		return true
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if _, again := d.names[id.Name]; again {
		return true
	}
	if len(d.names)+d.cost/2 >= d.limit {
		d.refused.Inc()
		if !d.warned {
			d.warned = true
			d.log.Error(nil, "Envoy has as many clusters on demand as it may; connections to further addresses fail. "+
				"See which pod dials so many, and restart the pod of this proxy to start over", "limit", d.limit)
		}
		return false
	}
	d.names[id.Name] = struct{}{}
	d.held.Set(float64(len(d.names)))
	return true
}

// release makes room for another name.
func (d *demand) release(id xds.ID) {
	if id.TypeURL != xds.TypeCluster {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.names, id.Name)
	d.held.Set(float64(len(d.names)))
}

// weigh is told how much those of the names cost besides that have endpoints.
func (d *demand) weigh(cost int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.cost = cost
}
