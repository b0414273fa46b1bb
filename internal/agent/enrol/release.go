// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// Release ends a pod's capture in two steps: new connections at once, the rest after a while. It returns how long to
// wait before it is called again, or zero when nothing is left.
func (n *Enroller) Release(ctx context.Context, uid string) (time.Duration, error) {
	e, err := n.pods.existing(ctx, uid)
	if err != nil {
		return 0, err
	}
	if e == nil {
		return 0, n.host.Set(uid, nil)
	}
	defer e.lock.unlock()
	n.neighbours.Released(ctx, uid)
	if e.redirected {
		err := n.kernel.Drain(e.target.Pod.Netns)
		if err != nil && !netns.Gone(err) {
			return 0, namespaceFailure(err)
		}
		e.redirected, e.complete = false, false
		e.plaintextEnded, e.outboundEnded = nil, false // others begin, until it is captured again
		e.releaseAt = time.Now().Add(n.waits.Linger)
		if err := n.host.Set(uid, nil); err != nil {
			return 0, namespaceFailure(err)
		}
	}
	if wait := time.Until(e.releaseAt); wait > 0 {
		return wait, nil
	}
	if err := n.kernel.Remove(e.target.Pod.Netns); err != nil && !netns.Gone(err) {
		return 0, namespaceFailure(err)
	}
	return 0, n.clear(ctx, uid, e)
}

// Forget drops all that was done for a pod that is gone.
func (n *Enroller) Forget(ctx context.Context, uid string) error {
	e, err := n.pods.existing(ctx, uid)
	if err != nil {
		return err
	}
	if e == nil {
		return n.host.Set(uid, nil)
	}
	defer e.lock.unlock()
	return n.clear(ctx, uid, e)
}

// ForgetSandbox is Forget, if the pod's network namespace still is the given one. A pod may have a new one by now,
// which CNI ADD has just captured. Without a given one (a runtime that cleans up after a reboot knows none), it is
// Forget if the one that we know no longer exists.
func (n *Enroller) ForgetSandbox(ctx context.Context, uid, path string) error {
	e, err := n.pods.existing(ctx, uid)
	if err != nil || e == nil {
		return err
	}
	defer e.lock.unlock()
	ours := e.target.Pod.Netns
	if path != "" && path != ours {
		return nil
	}
	if path == "" && ours != "" {
		if _, err := n.kernel.Has(ours); !netns.Gone(err) {
			return nil
		}
	}
	return n.clear(ctx, uid, e)
}

// clear removes listeners, identity and the node's rules for a pod; the entry's lock is held.
func (n *Enroller) clear(ctx context.Context, uid string, e *entry) error {
	n.neighbours.Forgotten(ctx, uid)
	n.withdraw(uid, e)
	return n.host.Set(uid, nil)
}

// Done is what was done for a pod; its zero value is nothing.
type Done struct {
	Target Target
	// Redirected: the pod's network namespace redirects to the proxy.
	Redirected bool
	// Complete: the pod has answered mTLS since.
	Complete bool
}

// Current is what was done for a pod so far; it does not wait for what is under way.
func (n *Enroller) Current(ctx context.Context, uid string) (Done, error) {
	e, err := n.pods.existing(ctx, uid)
	if err != nil || e == nil {
		return Done{}, err
	}
	defer e.lock.unlock()
	return Done{Target: e.target, Redirected: e.redirected, Complete: e.complete}, nil
}
