// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"sync"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/status/serving"
)

// ready follows how many proxies of each waypoint are. What they answer about the listener that they are counted by is
// mostly that they have its latest version: each new port brings one, and to the Gateway it is nothing new.
type ready struct {
	acks serving.Acknowledgements

	mu sync.Mutex
	of map[types.NamespacedName]int
}

func (r *ready) count(gateway types.NamespacedName) int {
	return len(catalogue.Ready(r.acks.State(catalogue.Serving(gateway))))
}

// changed counts again and tells whether there are more or fewer. The book is read under the lock, so that the later of
// two calls has the last word.
func (r *ready) changed(gateway types.NamespacedName) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.count(gateway)
	if now == r.of[gateway] {
		return false
	}
	if r.of[gateway] = now; now == 0 {
		delete(r.of, gateway)
	}
	return true
}
