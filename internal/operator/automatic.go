// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import "sync"

// automatic remembers of each namespace whether it needs an automatic waypoint. A namespace that the engine has not
// spoken of is not in it: before the engine has read the cluster, nobody may take that for "no".
type automatic struct {
	changed func(namespace string)

	mu     sync.Mutex
	needed map[string]bool
}

func newAutomatic(changed func(namespace string)) *automatic {
	return &automatic{changed: changed, needed: map[string]bool{}}
}

func (a *automatic) set(namespace string, needed, known bool) {
	a.mu.Lock()
	if known {
		a.needed[namespace] = needed
	} else {
		delete(a.needed, namespace)
	}
	a.mu.Unlock()
	a.changed(namespace)
}

func (a *automatic) need(namespace string) (needed, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	needed, known = a.needed[namespace]
	return needed, known
}
