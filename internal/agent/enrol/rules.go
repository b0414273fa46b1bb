// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"fmt"
	"slices"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

// redirect makes the kernel send the pod's traffic to the listeners, or brings what is there up to date.
func (n *Enroller) redirect(e *entry, t Target) error {
	// Probes must be known before plaintext is looked at.
	if err := n.host.Set(t.Pod.UID, t.probes); err != nil {
		return namespaceFailure(fmt.Errorf("probe rules of the node: %w", err))
	}
	want := wanted(t)
	switch now := time.Now(); {
	case !e.redirected || e.target.Share != t.Share || e.target.Peers != t.Peers:
		if err := n.kernel.Apply(t.Pod.Netns, want); err != nil {
			return namespaceFailure(err)
		}
		e.redirected, e.verified, e.refused = true, now, capture.Refused{}
	case e.target.closed != t.closed ||
		!slices.Equal(e.target.ranges, t.ranges) || !slices.Equal(e.target.probes, t.probes):
		if err := n.kernel.UpdateSets(t.Pod.Netns, want); err != nil {
			return namespaceFailure(err)
		}
		e.outboundEnded = false // there may be less that it may send to
	case now.Sub(e.verified) >= n.waits.Verify:
		n.noteRefused(e, t)
		if err := n.verify(t, want); err != nil {
			return err
		}
		e.verified = now
	}
	e.noteApplied(t)
	return nil
}

// noteApplied notes what the kernel has been told.
func (e *entry) noteApplied(t Target) {
	pod := e.target.Pod
	e.target = t
	e.target.Pod = pod // listeners are told apart
}

// noteRefused tells of connections that the kernel refused since the last look because of the pod's limits. It is
// called where the rules are compared anyway, and if they can't be read, that says so.
func (n *Enroller) noteRefused(e *entry, t Target) {
	total, err := n.kernel.Refused(t.Pod.Netns)
	if err != nil {
		return
	}
	if fresh := total.Since(e.refused); fresh != (capture.Refused{}) {
		n.observer.Refused(t, fresh)
	}
	e.refused = total
}

// closePlaintext ends the connections in plaintext at ports where the pod is strict: those from before the redirect,
// and those through the proxy, which Envoy would close when the filter chain that took them has drained.
func (n *Enroller) closePlaintext(e *entry, t Target) {
	if !t.Pod.RefusesPlaintext() || e.plaintextEnded != nil && !e.plaintextAgain &&
		e.plaintextEnded.Strict == t.Pod.Strict && slices.Equal(e.plaintextEnded.Except, t.Pod.Except) {
		return
	}
	again := n.former.Load()
	ended, err := n.kernel.EndPlaintext(t.Pod.Netns, t.probes, t.Pod.StrictAt)
	if err != nil {
		// Capture goes on, since new connections are safe; it is tried again at the next look.
		n.log.Error(err, "connections in plaintext stay open at ports that refuse it", "pod", t.Pod.Namespace+"/"+t.Pod.Name)
		return
	}
	e.plaintextEnded, e.plaintextAgain = &t.Pod, again
	if ended > 0 {
		n.log.Info("ended connections in plaintext at ports that refuse it", "pod", t.Pod.Namespace+"/"+t.Pod.Name,
			"connections", ended)
	}
}

// closeOutbound ends what the pod has open to outside of the mesh, once its rules refuse it.
func (n *Enroller) closeOutbound(e *entry, t Target) {
	if !t.closed || e.outboundEnded {
		return
	}
	ended, err := n.kernel.EndOutbound(t.Pod.Netns, wanted(t))
	if err != nil {
		// What the pod sends there is refused; it is tried again at the next look.
		n.log.Error(err, "connections to outside of the mesh from before stay open", "pod", t.Pod.Namespace+"/"+t.Pod.Name)
		return
	}
	e.outboundEnded = true
	if ended > 0 {
		n.log.Info("ended connections to outside of the mesh from before", "pod", t.Pod.Namespace+"/"+t.Pod.Name,
			"connections", ended)
	}
}

func (n *Enroller) verify(t Target, want capture.Pod) error {
	drift, err := n.kernel.Verify(t.Pod.Netns, want)
	if err != nil {
		return namespaceFailure(err)
	}
	if len(drift) == 0 {
		return nil
	}
	n.log.Info("the rules of a captured pod were changed, restoring them", "pod", t.Pod.Namespace+"/"+t.Pod.Name, "drift",
		drift)
	n.observer.Repaired()
	if err := n.kernel.Apply(t.Pod.Netns, want); err != nil {
		return namespaceFailure(err)
	}
	return nil
}

// wanted is how the kernel should capture a pod.
func wanted(t Target) capture.Pod {
	return capture.Pod{Ranges: t.ranges, Probes: t.probes, Share: t.Share, Peers: t.Peers, Closed: t.closed}
}

// renew brings the rules of an earlier run up to date.
func (n *Enroller) renew(t Target) error {
	want := wanted(t)
	drift, err := n.kernel.Verify(t.Pod.Netns, want)
	if err != nil || len(drift) == 0 {
		return err
	}
	n.log.Info("updated the rules of an earlier run", "pod", t.Pod.Namespace+"/"+t.Pod.Name, "drift", drift)
	return n.kernel.Apply(t.Pod.Netns, want)
}
