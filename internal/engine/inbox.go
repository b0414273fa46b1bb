// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"context"
	"fmt"
	"sync"
	"time"

	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

type queued struct {
	object  client.Object
	deleted bool
	// recreated: an object of the name was deleted, and this is another one. What depends on the old one, such as its
	// status, went with it.
	recreated bool
}

// Inbox holds what an engine is to take in: objects of the cluster, what proxies want and what they answer, in the
// order in which it came. It exists before the engine, for those whom the engine asks in turn, and may be used from
// anywhere. Of an object only the latest state is kept (and whether it is another object than before), so it never
// holds more than the cluster does.
type Inbox struct {
	mu      sync.Mutex
	objects []queued
	at      map[objectID]int
	calls   []func(*Engine)
	since   time.Time // of the first of them
	wake    wake.Signal
}

// NewInbox returns one that is empty.
func NewInbox() *Inbox { return &Inbox{wake: wake.New()} }

// Set queues an object that was added or changed.
func (q *Inbox) Set(obj client.Object) { q.object(obj, false) }

// Delete queues an object that is gone.
func (q *Inbox) Delete(obj client.Object) { q.object(obj, true) }

// Synced says that all objects that existed at the start have been queued. Nothing is served before: a proxy must not
// take a half-read cluster for the truth.
func (q *Inbox) Synced() {
	q.do(func(e *Engine) { e.synced = true; e.store.Pods.MarkSettled() })
}

// Interest queues what a proxy wants, or wants no more; it is xds.Options.OnInterest.
func (q *Inbox) Interest(i xds.Interest) { q.do(func(e *Engine) { e.interest(i) }) }

// Acknowledged says that proxies of this replica answered, came or went; it is for xds.Server.OnChange.
func (q *Inbox) Acknowledged(keys ...xds.Key) {
	var tables []xds.Key
	for _, k := range keys {
		if _, ok := catalogue.WaypointOf(k.Scope); ok && k.TypeURL == xds.TypeRoute {
			tables = append(tables, k)
		}
	}
	if len(tables) == 0 {
		return
	}
	q.do(func(e *Engine) {
		for _, k := range tables {
			e.answered[k] = true
		}
	})
}

// Verdict is told of each verdict of a proxy of this replica; it is for xds.Options.OnAck.
func (q *Inbox) Verdict(a xds.Ack) {
	if _, ok := catalogue.WaypointOf(a.Proxy.Scope); !ok || a.Error == "" || a.TypeURL != xds.TypeRoute {
		return
	}
	q.do(func(e *Engine) { e.rejected(a) })
}

// Reject takes in what another replica found out.
func (q *Inbox) Reject(r ingest.Rejection) { q.do(func(e *Engine) { e.reject(r) }) }

// Inspect runs a function on the engine's goroutine, for introspection, and waits for it.
func (q *Inbox) Inspect(ctx context.Context, f func(*ingest.Ingest)) error {
	done := make(chan struct{})
	q.do(func(e *Engine) { f(e.ingest); close(done) })
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

type objectID struct {
	kind string
	key  client.ObjectKey
}

func (q *Inbox) object(o client.Object, deleted bool) {
	id := objectID{fmt.Sprintf("%T", o), client.ObjectKeyFromObject(o)}
	q.mu.Lock()
	q.begin()
	if n, ok := q.at[id]; ok {
		was := q.objects[n]
		q.objects[n] = queued{o, deleted, !deleted && (was.deleted || was.recreated)}
	} else {
		if q.at == nil {
			q.at = map[objectID]int{}
		}
		q.at[id] = len(q.objects)
		q.objects = append(q.objects, queued{object: o, deleted: deleted})
	}
	q.mu.Unlock()
	q.wake.Set()
}

func (q *Inbox) do(f func(*Engine)) {
	q.mu.Lock()
	q.begin()
	q.calls = append(q.calls, f)
	q.mu.Unlock()
	q.wake.Set()
}

// begin notes the time of what is the first to be queued. The lock is held.
func (q *Inbox) begin() {
	if len(q.objects) == 0 && len(q.calls) == 0 {
		q.since = time.Now()
	}
}

// take takes all that is queued, and tells since when there was some.
func (q *Inbox) take() ([]queued, []func(*Engine), time.Time) {
	q.mu.Lock()
	defer q.mu.Unlock()
	objects, calls := q.objects, q.calls
	q.objects, q.calls, q.at = nil, nil, nil
	return objects, calls, q.since
}
