// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"net/netip"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/identity"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Proxy is the node proxy's configuration, as far as it is made here; relay.Relay is one.
type Proxy interface {
	// SetLocal sets resources; nil removes one.
	SetLocal(typeURL string, updates []xds.Update)
	// WaitAcked waits until the proxy has accepted the resource as it is set now.
	WaitAcked(ctx context.Context, id xds.ID) error
}

// Certificates makes certificates; sds.Manager is one.
type Certificates interface {
	// Want asks for the identity of a pod until Unwant was called as often.
	Want(id string, pod identity.Pod) error
	Unwant(id string, pod identity.Pod)
	// Await waits until a wanted identity has a certificate.
	Await(ctx context.Context, id string) error
}

// Kernel is what is done in a pod's network namespace, by its path; kernel.Kernel is one. Errors of a namespace that is
// gone are netns.Gone.
type Kernel interface {
	Listening(path string, ports ...uint16) (map[uint16]bool, error)
	Apply(path string, p capture.Pod) error
	UpdateSets(path string, p capture.Pod) error
	Verify(path string, p capture.Pod) (drift []string, err error)
	Refused(path string) (capture.Refused, error)
	EndPlaintext(path string, probes []netip.AddrPort, refused func(port uint16) bool) (ended int, err error)
	EndOutbound(path string, p capture.Pod) (ended int, err error)
	Prepare(path string) error
	Drain(path string) error
	Remove(path string) error
	Has(path string) (bool, error)
}

// Host keeps the node's own rules equal to what its captured pods need.
type Host interface {
	// Set says what kubelet calls on a pod; nothing, once the pod isn't captured.
	Set(uid string, probes []netip.AddrPort) error
	// Note is Set for later: the rules stay as they are.
	Note(uid string, probes []netip.AddrPort)
}

// Neighbours lead connections between captured pods of the node through its proxy once; neighbours.Keeper does.
type Neighbours interface {
	// Captured: the pod answers mTLS, in this network namespace.
	Captured(p translatenode.Pod)
	// Released returns when no new connection goes there any more, or comes from there; Forgotten likewise, for a pod that
	// is gone.
	Released(ctx context.Context, uid string)
	Forgotten(ctx context.Context, uid string)
}

// Observer is told what nobody asked for.
type Observer interface {
	// Repaired: somebody had changed the rules of a captured pod, and they were put back.
	Repaired()
	// Refused: the kernel refused connections beyond a pod's limits.
	Refused(t Target, fresh capture.Refused)
}
