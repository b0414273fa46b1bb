// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"
	"sigs.k8s.io/controller-runtime/pkg/source"
)

// Trigger is a source of reconcile requests from inside the operator. It never blocks who notifies it: before the
// controller runs (a replica that does not lead) it remembers each request once, afterwards the controller's queue
// does.
type Trigger struct {
	pause time.Duration

	mu      sync.Mutex
	queue   workqueue.TypedRateLimitingInterface[reconcile.Request]
	pending map[reconcile.Request]struct{}
}

var _ source.Source = (*Trigger)(nil)

// NewTrigger makes a trigger for one controller.
func NewTrigger() *Trigger { return &Trigger{pending: map[reconcile.Request]struct{}{}} }

// NewPausedTrigger makes a trigger that lets notifications gather for a while, where each costs a reconcile and many
// come at once.
func NewPausedTrigger(pause time.Duration) *Trigger {
	t := NewTrigger()
	t.pause = pause
	return t
}

// Notify asks for a reconcile.
func (t *Trigger) Notify(name types.NamespacedName) {
	t.mu.Lock()
	defer t.mu.Unlock()
	r := reconcile.Request{NamespacedName: name}
	if t.queue != nil {
		t.queue.AddAfter(r, t.pause) // at once if the pause is zero
		return
	}
	t.pending[r] = struct{}{}
}

// Start is called by the controller.
func (t *Trigger) Start(_ context.Context, queue workqueue.TypedRateLimitingInterface[reconcile.Request]) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.queue = queue
	for r := range t.pending {
		queue.Add(r)
	}
	t.pending = nil
	return nil
}
