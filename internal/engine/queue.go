// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"sync"

	"sigs.k8s.io/controller-runtime/pkg/client"
)

type queued struct {
	object  client.Object
	deleted bool
	// recreated: an object of the name was deleted, and this is another one. What depends on the old one, such as its
	// status, went with it.
	recreated bool
}

// queue holds what is to be taken in. Of an object only the latest state is kept (and whether it is another object than
// before), so it never holds more than the cluster does.
type queue struct {
	mu      sync.Mutex
	objects []queued
	at      map[objectID]int
	calls   []func()
	wake    chan struct{}
}

type objectID struct {
	kind string
	key  client.ObjectKey
}

func (q *queue) object(o client.Object, deleted bool) {
	id := objectID{fmt.Sprintf("%T", o), client.ObjectKeyFromObject(o)}
	q.mu.Lock()
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
	q.signal()
}

func (q *queue) do(f func()) {
	q.mu.Lock()
	q.calls = append(q.calls, f)
	q.mu.Unlock()
	q.signal()
}

func (q *queue) signal() {
	select {
	case q.wake <- struct{}{}:
	default:
	}
}

func (q *queue) take() ([]queued, []func()) {
	q.mu.Lock()
	defer q.mu.Unlock()
	objects, calls := q.objects, q.calls
	q.objects, q.calls, q.at = nil, nil, nil
	return objects, calls
}
