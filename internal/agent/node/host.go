// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"maps"
	"net/netip"
	"slices"
	"sync"

	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

// hostRules keeps the node's own rules equal to the sum of what its captured pods need. What is applied replaces what
// was there, so nothing may be applied before all pods of an earlier run are noted.
type hostRules struct {
	kernel hostKernel
	log    logr.Logger

	mu      sync.Mutex
	probes  map[string][]netip.AddrPort // by pod UID
	applied bool
}

func newHostRules(k hostKernel, log logr.Logger) *hostRules {
	return &hostRules{kernel: k, log: log, probes: map[string][]netip.AddrPort{}}
}

// Note implements enrol.Host.
func (h *hostRules) Note(uid string, probes []netip.AddrPort) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.record(uid, probes)
}

// Set implements enrol.Host.
func (h *hostRules) Set(uid string, probes []netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.applied && slices.Equal(h.probes[uid], probes) {
		return nil
	}
	h.record(uid, probes)
	return h.apply()
}

// record is called with the lock held.
func (h *hostRules) record(uid string, probes []netip.AddrPort) {
	if len(probes) == 0 {
		delete(h.probes, uid)
	} else {
		h.probes[uid] = probes
	}
}

// Repair implements pods.Host. It applies the rules if that failed before, and puts them back if somebody changed them.
func (h *hostRules) Repair() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.applied {
		return h.apply()
	}
	drift, err := h.kernel.VerifyHost(h.wanted())
	if err != nil || len(drift) == 0 {
		return err
	}
	h.log.Info("the node's probe rules were changed, restoring them", "drift", drift)
	return h.apply()
}

// wanted is called with the lock held, as is apply.
func (h *hostRules) wanted() capture.Host {
	return capture.Host{Probes: slices.Concat(slices.Collect(maps.Values(h.probes))...)}
}

func (h *hostRules) apply() error {
	h.applied = false
	if err := h.kernel.ApplyHost(h.wanted()); err != nil {
		return err
	}
	h.applied = true
	return nil
}
