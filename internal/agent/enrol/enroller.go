// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"cmp"
	"context"
	"fmt"
	"reflect"
	"slices"
	"sync/atomic"
	"time"

	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// VerifyEvery is how often the kernel's rules of a captured pod are compared with how they should be.
	VerifyEvery = 30 * time.Second
	// linger is how long a released pod answers mTLS: until all senders have heard that it doesn't.
	linger = 30 * time.Second
	// listenPoll is how often the listening sockets of a namespace are looked at: the kernel tells nobody of them.
	listenPoll = 20 * time.Millisecond
	// certificateWait bounds the wait for a certificate within one attempt to enrol a pod.
	certificateWait = 10 * time.Second
)

// Waits are durations that tests shorten; the default of each is for its zero value.
type Waits struct{ Certificate, Linger, Verify time.Duration }

// Order in which a pod is captured.
type Order int

const (
	// Running pods have traffic already, so nothing is redirected until they could answer mTLS.
	Running Order = iota
	// Starting pods have no process yet, so redirecting costs nothing, and nothing may escape. They don't wait for the
	// certificate: until that comes, connections between them and the mesh wait or are refused.
	Starting
)

// Options of an Enroller; Waits may be left out.
type Options struct {
	Proxy        Proxy
	Certificates Certificates
	Kernel       Kernel
	Host         Host
	Neighbours   Neighbours
	Observer     Observer
	Log          logr.Logger
	Waits        Waits
}

// Enroller captures and releases pods, one step after the other and idempotently: each call does what is missing.
type Enroller struct {
	proxy        Proxy
	certificates Certificates
	kernel       Kernel
	host         Host
	neighbours   Neighbours
	observer     Observer
	log          logr.Logger
	waits        Waits
	pods         entries
	// former: the proxy of the agent before may be taking connections still, by the modes that pods had then.
	former atomic.Bool
}

// New makes an Enroller, which has done nothing for any pod.
func New(o Options) *Enroller {
	return &Enroller{
		proxy: o.Proxy, certificates: o.Certificates, kernel: o.Kernel, host: o.Host, neighbours: o.Neighbours,
		observer: o.Observer, log: o.Log,
		waits: Waits{
			Certificate: cmp.Or(o.Waits.Certificate, certificateWait), Linger: cmp.Or(o.Waits.Linger, linger),
			Verify: cmp.Or(o.Waits.Verify, VerifyEvery),
		},
		pods: entries{byUID: map[string]*entry{}},
	}
}

// Former says whether the proxy of the agent that was in charge before may be taking connections still. It knows of no
// change since, so what comes in plaintext is looked for again until it has stopped.
func (n *Enroller) Former(listens bool) { n.former.Store(listens) }

// Capture brings a pod to its target. With Starting, it returns once traffic is redirected, and a later call with
// Running does the rest.
func (n *Enroller) Capture(ctx context.Context, t Target, o Order) error {
	e, err := n.pods.acquire(ctx, t.Pod.UID)
	if err != nil {
		return Fail(causeProxy, "another attempt for the same pod is still under way", err)
	}
	defer e.lock.unlock()
	e.releaseAt = time.Time{}
	if e.target.Pod.Netns != t.Pod.Netns || !t.Pod.Neighbours {
		n.neighbours.Released(ctx, t.Pod.UID)
	}
	if e.target.Pod.Netns != t.Pod.Netns {
		// A new sandbox: nothing that was done in the old one counts.
		e.redirected, e.complete, e.outboundEnded, e.plaintextEnded = false, false, false, nil
	}
	if err := n.wantIdentity(e, t); err != nil {
		return err
	}
	if o == Running {
		if err := n.prepare(e, t); err != nil {
			return namespaceFailure(err)
		}
	}
	n.setListeners(e, t)
	if err := n.awaitListeners(ctx, e, t); err != nil {
		return err
	}
	if o == Running && !e.redirected {
		if err := n.awaitMTLS(ctx, e, t); err != nil {
			return err
		}
	}
	if err := n.redirect(e, t); err != nil {
		return err
	}
	n.closePlaintext(e, t)
	n.closeOutbound(e, t)
	if o == Starting {
		return nil
	}
	if err := n.awaitMTLS(ctx, e, t); err != nil {
		return err
	}
	e.complete = true
	if t.Pod.Neighbours {
		n.neighbours.Captured(t.Pod)
	}
	return nil
}

func (n *Enroller) wantIdentity(e *entry, t Target) error {
	id, pod := t.Pod.Identity, identity.Pod{UID: t.Pod.UID, Name: t.Pod.Name}
	if e.identity == id {
		return nil
	}
	if err := n.certificates.Want(id, pod); err != nil {
		return Fail(causeCertificate, "use fewer service accounts on one node", err)
	}
	if e.identity != "" {
		n.certificates.Unwant(e.identity, e.pod)
	}
	e.identity, e.pod = id, pod
	return nil
}

// prepare keeps the processes of a pod that isn't captured yet from seeing what they must not of its listeners'
// connections.
func (n *Enroller) prepare(e *entry, t Target) error {
	if e.redirected || reflect.DeepEqual(e.target.Pod, t.Pod) {
		return nil
	}
	return n.kernel.Prepare(t.Pod.Netns)
}

// setListeners gives the proxy the pod's listeners.
func (n *Enroller) setListeners(e *entry, t Target) {
	if reflect.DeepEqual(e.target.Pod, t.Pod) {
		return
	}
	var updates []xds.Update
	for _, l := range translatenode.Listeners(t.Pod) {
		r, err := xds.NewResource(l.GetName(), l)
		if err != nil { // only a programming error gets here; the wait for the ACK reports it
			n.log.Error(err, "listener of a pod", "pod", t.Pod.Namespace+"/"+t.Pod.Name)
			continue
		}
		updates = append(updates, xds.Set(r))
	}
	n.proxy.SetLocal(xds.TypeListener, updates)
	e.target.Pod = t.Pod
	e.listening = false
}

const adviceProxy = "see the log of the node proxy on this node (kubectl -n " + names.SystemNamespace + " logs ds/" +
	names.NodeDaemonSet + " -c envoy)"

// awaitListeners waits until the proxy has taken the pod's listeners and its capture ports are open.
func (n *Enroller) awaitListeners(ctx context.Context, e *entry, t Target) error {
	if e.listening {
		return nil
	}
	for _, name := range translatenode.ListenerNames(t.Pod.UID) {
		if err := n.proxy.WaitAcked(ctx, xds.ID{TypeURL: xds.TypeListener, Name: name}); err != nil {
			return Fail(causeProxy, adviceProxy, err)
		}
	}
	if err := n.awaitPorts(ctx, t, names.PortOutbound, names.PortInbound); err != nil {
		return err
	}
	e.listening = true
	return nil
}

// awaitMTLS waits until the pod has a certificate and its mTLS port is open.
func (n *Enroller) awaitMTLS(ctx context.Context, e *entry, t Target) error {
	if e.complete {
		return nil
	}
	certCtx, cancel := context.WithTimeout(ctx, n.waits.Certificate)
	defer cancel()
	if err := n.certificates.Await(certCtx, t.Pod.Identity); err != nil {
		return Fail(causeCertificate,
			"see condition CertificatesReady of: kubectl describe mesh "+names.Mesh+", and whether the operator runs", err)
	}
	return n.awaitPorts(ctx, t, names.PortMTLS)
}

func (n *Enroller) awaitPorts(ctx context.Context, t Target, ports ...uint16) error {
	tick := time.NewTicker(listenPoll)
	defer tick.Stop()
	for {
		open, err := n.kernel.Listening(t.Pod.Netns, ports...)
		if err != nil {
			return namespaceFailure(err)
		}
		missing := slices.DeleteFunc(slices.Clone(ports), func(p uint16) bool { return open[p] })
		if len(missing) == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return Fail(causeListening, adviceProxy,
				fmt.Errorf("the node proxy doesn't listen on port %d in the pod's network namespace: %w", missing[0],
					context.Cause(ctx)))
		case <-tick.C:
		}
	}
}

// Prime sets the listeners and the certificate of a pod that may be captured already, so that the proxy's first
// complete list has them. Nothing is waited for. redirected tells that the kernel has rules. They may be of an earlier
// version or for the mark of an earlier proxy, and would lead what this proxy sends back to it, so they are brought up
// to date before.
func (n *Enroller) Prime(ctx context.Context, t Target, redirected bool) error {
	e, err := n.pods.acquire(ctx, t.Pod.UID)
	if err != nil {
		return err
	}
	defer e.lock.unlock()
	if err := n.wantIdentity(e, t); err != nil {
		return err
	}
	if redirected {
		err = n.renew(t)
	} else {
		err = n.prepare(e, t)
	}
	if err != nil {
		return err
	}
	n.setListeners(e, t)
	if redirected {
		e.verified = time.Now()
		e.redirected = true
		e.noteApplied(t)
		n.host.Note(t.Pod.UID, t.probes)
	}
	return nil
}
