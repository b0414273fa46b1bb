// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"

	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Shadow gives the proxy the listeners and the certificate of a pod that another agent has captured, whose proxy
// listens beside it. The rules are the other's, and Prime takes them over.
func (n *Enroller) Shadow(ctx context.Context, t Target) error {
	e, err := n.pods.acquire(ctx, t.Pod.UID)
	if err != nil {
		return err
	}
	defer e.lock.unlock()
	if err := n.wantIdentity(e, t); err != nil {
		return err
	}
	n.setListeners(e, t)
	return nil
}

// Withdraw takes back what Shadow gave.
func (n *Enroller) Withdraw(ctx context.Context, uid string) error {
	e, err := n.pods.existing(ctx, uid)
	if err != nil || e == nil {
		return err
	}
	defer e.lock.unlock()
	n.withdraw(uid, e)
	return nil
}

// withdraw removes listeners and identity of a pod; the entry's lock is held.
func (n *Enroller) withdraw(uid string, e *entry) {
	listeners := translatenode.ListenerNames(uid)
	updates := make([]xds.Update, 0, len(listeners))
	for _, name := range listeners {
		updates = append(updates, xds.Gone(xds.ID{TypeURL: xds.TypeListener, Name: name}))
	}
	n.proxy.SetLocal(xds.TypeListener, updates)
	if e.identity != "" {
		n.certificates.Unwant(e.identity, e.pod)
	}
	n.pods.drop(uid, e)
}
