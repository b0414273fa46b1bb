// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

// Sandboxes knows the network namespaces of pods, from the container runtime; netns.Runtime is one.
type Sandboxes interface {
	// Netns is the path of the pod's network namespace on the host, or netns.ErrNoSandbox.
	Netns(ctx context.Context, pod netns.Pod) (string, error)
}

// Kernel is what is asked of pods' network namespaces, by their paths, beside what enrolling takes; kernel.Kernel is
// one.
type Kernel interface {
	Has(path string) (bool, error)
	Redirects(path string) (bool, error)
	Remove(path string) error
	// Dialled is what a pod dialled lately, the last one first.
	Dialled(path string) ([]capture.Dial, error)
}

// Waypoints of the node may have connections of theirs reset; resets.Server serves them.
type Waypoints interface {
	// Serves tells whether that pod of the name may, with the network that it has.
	Serves(pod types.NamespacedName, which string) bool
	Serve(pod types.NamespacedName, which, path string) error
	Drop(pod types.NamespacedName)
	// Close drops all.
	Close()
}

// Host keeps the node's own rules equal to what its captured pods need.
type Host interface {
	enrol.Host
	// Repair puts them in place, if they aren't.
	Repair() error
}

// Endpoints are the endpoints and addresses that the node's proxy has; relay.Relay knows them.
type Endpoints interface {
	// Short tells whether the proxy has fewer endpoints or addresses than there are.
	Short() bool
	// Asks is filled when a connection waits until Prefer says whether the proxy gets its address.
	Asks() <-chan struct{}
	// Prefer is told the clusters that each pod dialled lately, the last one first, to give those pods all first that want
	// few.
	Prefer(pods [][]string)
	// Unsure tells whether it must be known which identities dialled what, for the proxy keeps something for each, on a
	// node with so many of them.
	Unsure(identities int) bool
	// DialledBy is told that, of one pod after the other, by the names of the clusters when last; Forget that it was of
	// all.
	DialledBy(identity string, when map[string]time.Time)
	Forget()
}
