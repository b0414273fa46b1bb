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

// hostRules keeps the node's own rules equal to the sum of what its captured pods need.
type hostRules struct {
	kernel Kernel
	log    logr.Logger

	mu      sync.Mutex
	probes  map[string][]netip.AddrPort // by pod UID
	applied bool
}

func newHostRules(k Kernel, log logr.Logger) *hostRules {
	return &hostRules{kernel: k, log: log, probes: map[string][]netip.AddrPort{}}
}

// set says what kubelet calls on a pod; nothing, once the pod isn't captured.
func (h *hostRules) set(uid string, probes []netip.AddrPort) error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.applied && slices.Equal(h.probes[uid], probes) {
		return nil
	}
	if len(probes) == 0 {
		delete(h.probes, uid)
	} else {
		h.probes[uid] = probes
	}
	return h.apply()
}

// repair puts the rules back if somebody changed them.
func (h *hostRules) repair() error {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.applied {
		return nil
	}
	drift, err := h.kernel.VerifyHost(h.wanted())
	if err != nil || len(drift) == 0 {
		return err
	}
	h.log.Info("somebody changed the node's probe rules; putting them back", "drift", drift)
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
