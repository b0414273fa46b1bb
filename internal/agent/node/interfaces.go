// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"io/fs"
	"net/netip"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Proxy is the node proxy's configuration, as far as the agent makes it; relay.Relay is one.
type Proxy interface {
	// SetLocal sets resources; nil removes one.
	SetLocal(typeURL string, updates []xds.Update)
	// LocalReady says that all resources of a type that the proxy starts with are set.
	LocalReady(typeURL string)
	// WaitAcked waits until the proxy has accepted the resource as it is set now.
	WaitAcked(ctx context.Context, id xds.ID) error
	// Short tells whether the proxy has fewer endpoints or addresses than there are.
	Short() bool
	// Asks is filled when a connection waits until Prefer says whether the proxy gets its address.
	Asks() <-chan struct{}
	// Prefer is told the clusters that each pod dialled lately, the last one first, to give those pods all first that want few.
	Prefer(pods [][]string)
}

// Certificates makes certificates; sds.Manager is one.
type Certificates interface {
	// Want asks for an identity until Unwant was called as often.
	Want(id string) error
	Unwant(id string)
	// Await waits until a wanted identity has a certificate.
	Await(ctx context.Context, id string) error
}

// Sandboxes knows the network namespaces of pods, from the container runtime; netns.Runtime is one.
type Sandboxes interface {
	// Netns is the path of the pod's network namespace on the host, or netns.ErrNoSandbox.
	Netns(ctx context.Context, pod netns.Pod) (string, error)
}

// Kernel is what the agent does in network namespaces, by their paths. Errors are errGone for a namespace that is gone.
type Kernel interface {
	// Listening tells which ports have a listener.
	Listening(path string, ports ...uint16) (map[uint16]bool, error)
	Apply(path string, p capture.Pod) error
	UpdateSets(path string, p capture.Pod) error
	// Verify says what differs from how it should be; nothing, if all is well.
	Verify(path string, p capture.Pod) (drift []string, err error)
	// Refused is how many connections were refused, since Apply, because of the pod's limits.
	Refused(path string) (capture.Refused, error)
	// CanLimitPeers says why the kernel can't count connections by peer. Pods are captured without that limit then.
	CanLimitPeers() error
	// Dialled is what a pod dialled lately, the last one first.
	Dialled(path string) ([]netip.AddrPort, error)
	// EndPlaintext resets the connections to the pod's applications that don't pass the proxy and are no probes.
	EndPlaintext(path string, probes []netip.AddrPort) (ended int, err error)
	// Prepare must come before the proxy gets the listeners of a pod that runs already.
	Prepare(path string) error
	// Drain ends the redirect of new connections and keeps what open ones need.
	Drain(path string) error
	Remove(path string) error
	// Has tells whether there is anything of ours in the namespace.
	Has(path string) (bool, error)
	// Redirects tells whether the namespace's traffic is captured.
	Redirects(path string) (bool, error)
	ApplyHost(h capture.Host) error
	VerifyHost(h capture.Host) (drift []string, err error)
	RemoveHost() error
}

// gone tells whether an error means that the network namespace no longer exists.
func gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, netns.ErrNotNamespace)
}
