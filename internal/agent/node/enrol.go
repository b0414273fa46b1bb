// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/names"
	translate "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// verifyEvery is how often the kernel's rules of a captured pod are compared with how they should be.
	verifyEvery = 30 * time.Second
	// linger is how long a released pod answers mTLS: until all senders have heard that it doesn't.
	linger = 30 * time.Second
	// listenPoll is how often the listening sockets of a namespace are looked at: the kernel tells nobody of them.
	listenPoll = 20 * time.Millisecond
	// certificateWait bounds the wait for a certificate within one attempt to enrol a pod.
	certificateWait = 10 * time.Second
)

// waits are durations that tests shorten.
type waits struct{ attempt, certificate, linger, verify, runtime, orphan time.Duration }

var defaultWaits = waits{
	attempt: attemptTimeout, certificate: certificateWait, linger: linger, verify: verifyEvery, runtime: runtimeWait, orphan: orphanGrace,
}

// Causes of a failed attempt: the label of a metric, and the first words of the message for people.
const (
	CauseCertificate = "Certificate"
	CauseProxy       = "Proxy"
	CauseListening   = "Listening"
	CauseRules       = "Rules"
	CauseSandbox     = "Sandbox"
	CauseRanges      = "Ranges"
)

// CaptureError is why a pod could not be captured.
type CaptureError struct {
	Cause string
	// Advice is what a person can do.
	Advice string
	Err    error
}

func (f *CaptureError) Error() string { return f.Err.Error() + "; " + f.Advice }
func (f *CaptureError) Unwrap() error { return f.Err }

func fail(cause, advice string, err error) error {
	return &CaptureError{Cause: cause, Advice: advice, Err: err}
}

// Order in which a pod is captured.
type order int

const (
	// running: nothing is redirected until the pod could answer mTLS, since it has traffic already.
	running order = iota
	// starting: the pod has no process yet, so redirecting costs nothing, and nothing may escape. It doesn't wait for the
	// certificate: until that comes, connections between it and the mesh wait or are refused.
	starting
)

// enroller captures and releases pods, one step after the other and idempotently: each call does what is missing.
type enroller struct {
	proxy        Proxy
	certificates Certificates
	kernel       Kernel
	host         *hostRules
	pods         *registry
	log          logr.Logger
	onRepair     func()
	// onRefused is told of connections beyond a pod's limits.
	onRefused func(t Target, fresh capture.Refused)
	now       func() time.Time
	waits     waits
}

// capture brings a pod to its target. With order starting, it returns once traffic is redirected, and a later call with order
// running does the rest.
func (n *enroller) capture(ctx context.Context, t Target, o order) error {
	e, err := n.pods.acquire(ctx, t.Pod.UID)
	if err != nil {
		return fail(CauseProxy, "another attempt for the same pod is still under way", err)
	}
	defer e.lock.unlock()
	e.releaseAt = time.Time{}
	if e.target.Pod.Netns != t.Pod.Netns {
		// A new sandbox: nothing that was done in the old one counts.
		e.redirected, e.complete, e.closed = false, false, false
	}
	if err := n.wantIdentity(e, t.Pod.Identity); err != nil {
		return err
	}
	if o == running {
		if err := n.prepare(e, t); err != nil {
			return namespaceFailure(err)
		}
	}
	n.setListeners(e, t)
	if err := n.awaitListeners(ctx, e, t); err != nil {
		return err
	}
	if o == running && !e.redirected {
		if err := n.awaitMTLS(ctx, e, t); err != nil {
			return err
		}
	}
	if err := n.redirect(e, t); err != nil {
		return err
	}
	n.closePlaintext(e, t)
	if o == starting || e.complete {
		return nil
	}
	if err := n.awaitMTLS(ctx, e, t); err != nil {
		return err
	}
	e.complete = true
	return nil
}

func (n *enroller) wantIdentity(e *entry, id string) error {
	if e.identity == id {
		return nil
	}
	if err := n.certificates.Want(id); err != nil {
		return fail(CauseCertificate, "use fewer service accounts on one node", err)
	}
	if e.identity != "" {
		n.certificates.Unwant(e.identity)
	}
	e.identity = id
	return nil
}

// prepare keeps the processes of a pod that isn't captured yet from seeing what they must not of its listeners' connections.
func (n *enroller) prepare(e *entry, t Target) error {
	if e.redirected || reflect.DeepEqual(e.target.Pod, t.Pod) {
		return nil
	}
	return n.kernel.Prepare(t.Pod.Netns)
}

// setListeners gives the proxy the pod's listeners.
func (n *enroller) setListeners(e *entry, t Target) {
	if reflect.DeepEqual(e.target.Pod, t.Pod) {
		return
	}
	var updates []xds.Update
	for _, l := range translate.Listeners(t.Pod) {
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

const adviceProxy = "see the log of the node proxy on this node (kubectl -n " + names.SystemNamespace + " logs ds/" + names.NodeDaemonSet + " -c envoy)"

// awaitListeners waits until the proxy has taken the pod's listeners and its capture ports are open.
func (n *enroller) awaitListeners(ctx context.Context, e *entry, t Target) error {
	if e.listening {
		return nil
	}
	for _, name := range translate.ListenerNames(t.Pod.UID) {
		if err := n.proxy.WaitAcked(ctx, xds.ID{TypeURL: xds.TypeListener, Name: name}); err != nil {
			return fail(CauseProxy, adviceProxy, err)
		}
	}
	if err := n.awaitPorts(ctx, t, names.PortOutbound, names.PortInbound); err != nil {
		return err
	}
	e.listening = true
	return nil
}

// awaitMTLS waits until the pod has a certificate and its mTLS port is open.
func (n *enroller) awaitMTLS(ctx context.Context, e *entry, t Target) error {
	if e.complete {
		return nil
	}
	certCtx, cancel := context.WithTimeout(ctx, n.waits.certificate)
	defer cancel()
	if err := n.certificates.Await(certCtx, t.Pod.Identity); err != nil {
		return fail(CauseCertificate, "see condition CertificatesReady of: kubectl describe mesh "+names.Mesh+", and whether the operator runs", err)
	}
	return n.awaitPorts(ctx, t, names.PortMTLS)
}

func (n *enroller) awaitPorts(ctx context.Context, t Target, ports ...uint16) error {
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
			return fail(CauseListening, adviceProxy, fmt.Errorf("the node proxy doesn't listen on port %d in the pod's network namespace: %w", missing[0], context.Cause(ctx)))
		case <-tick.C:
		}
	}
}

func namespaceFailure(err error) error {
	if gone(err) {
		return fail(CauseSandbox, "the agent tries again when the pod has a new one", fmt.Errorf("the pod's network namespace is gone: %w", err))
	}
	return fail(CauseRules, "the agent needs the capabilities SYS_ADMIN and NET_ADMIN, and the kernel nf_tables", err)
}

// redirect makes the kernel send the pod's traffic to the listeners, or brings what is there up to date.
func (n *enroller) redirect(e *entry, t Target) error {
	// Probes must be known before plaintext is looked at.
	if err := n.host.set(t.Pod.UID, t.Probes); err != nil {
		return namespaceFailure(fmt.Errorf("probe rules of the node: %w", err))
	}
	want := wanted(t)
	switch now := n.now(); {
	case !e.redirected || e.target.Share != t.Share || e.target.Peers != t.Peers:
		if err := n.kernel.Apply(t.Pod.Netns, want); err != nil {
			return namespaceFailure(err)
		}
		e.redirected, e.verified, e.refused = true, now, capture.Refused{}
	case !slices.Equal(e.target.Ranges, t.Ranges) || !slices.Equal(e.target.Probes, t.Probes):
		if err := n.kernel.UpdateSets(t.Pod.Netns, want); err != nil {
			return namespaceFailure(err)
		}
	case now.Sub(e.verified) >= n.waits.verify:
		n.noteRefused(e, t)
		if err := n.verify(t, want); err != nil {
			return err
		}
		e.verified = now
	}
	e.applied(t)
	return nil
}

// applied notes what the kernel has been told.
func (e *entry) applied(t Target) {
	e.target.Ranges, e.target.Probes, e.target.Share, e.target.Peers = t.Ranges, t.Probes, t.Share, t.Peers
}

// noteRefused tells of connections that the kernel refused since the last look because of the pod's limits. It is
// called where the rules are compared anyway, and if they can't be read, that says so.
func (n *enroller) noteRefused(e *entry, t Target) {
	total, err := n.kernel.Refused(t.Pod.Netns)
	if err != nil {
		return
	}
	if fresh := total.Since(e.refused); fresh != (capture.Refused{}) {
		n.onRefused(t, fresh)
	}
	e.refused = total
}

// closePlaintext ends the connections from before the redirect, once the pod is strict. Those in plaintext through the proxy
// end by themselves: Envoy closes them when the listener that took them has drained.
func (n *enroller) closePlaintext(e *entry, t Target) {
	if !t.Pod.Strict || e.closed {
		e.closed = t.Pod.Strict
		return
	}
	ended, err := n.kernel.EndPlaintext(t.Pod.Netns, t.Probes)
	if err != nil {
		// Capture goes on, since new connections are safe; it is tried again at the next look.
		n.log.Error(err, "connections in plaintext from before stay open", "pod", t.Pod.Namespace+"/"+t.Pod.Name)
		return
	}
	e.closed = true
	if ended > 0 {
		n.log.Info("ended connections in plaintext from before", "pod", t.Pod.Namespace+"/"+t.Pod.Name, "connections", ended)
	}
}

func (n *enroller) verify(t Target, want capture.Pod) error {
	drift, err := n.kernel.Verify(t.Pod.Netns, want)
	if err != nil {
		return namespaceFailure(err)
	}
	if len(drift) == 0 {
		return nil
	}
	n.log.Info("somebody changed the rules of a captured pod; putting them back", "pod", t.Pod.Namespace+"/"+t.Pod.Name, "drift", drift)
	n.onRepair()
	if err := n.kernel.Apply(t.Pod.Netns, want); err != nil {
		return namespaceFailure(err)
	}
	return nil
}

// prime sets the listeners and the certificate of a pod that may be captured already, so that the proxy's first
// complete list has them. Nothing is waited for. redirected tells that the kernel has rules. They may be of an earlier version or for
// the mark of an earlier proxy, and would lead what this proxy sends back to it, so they are brought up to date before.
func (n *enroller) prime(ctx context.Context, t Target, redirected bool) error {
	e, err := n.pods.acquire(ctx, t.Pod.UID)
	if err != nil {
		return err
	}
	defer e.lock.unlock()
	if err := n.wantIdentity(e, t.Pod.Identity); err != nil {
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
		e.verified = n.now()
		e.redirected = true
		e.applied(t)
		n.host.note(t.Pod.UID, t.Probes)
	}
	return nil
}

// wanted is how the kernel should capture a pod.
func wanted(t Target) capture.Pod {
	return capture.Pod{Ranges: t.Ranges, Probes: t.Probes, Share: t.Share, Peers: t.Peers}
}

// renew brings the rules of an earlier run up to date.
func (n *enroller) renew(t Target) error {
	want := wanted(t)
	drift, err := n.kernel.Verify(t.Pod.Netns, want)
	if err != nil || len(drift) == 0 {
		return err
	}
	n.log.Info("the rules of an earlier run are brought up to date", "pod", t.Pod.Namespace+"/"+t.Pod.Name, "drift", drift)
	return n.kernel.Apply(t.Pod.Netns, want)
}

// release ends a pod's capture in two steps: new connections at once, the rest after a while. It returns how long to wait
// before it is called again, or zero when nothing is left.
func (n *enroller) release(ctx context.Context, uid string) (time.Duration, error) {
	e, err := n.pods.existing(ctx, uid)
	if err != nil {
		return 0, err
	}
	if e == nil {
		return 0, n.host.set(uid, nil)
	}
	defer e.lock.unlock()
	if e.redirected {
		err := n.kernel.Drain(e.target.Pod.Netns)
		if err != nil && !gone(err) {
			return 0, namespaceFailure(err)
		}
		e.redirected, e.complete = false, false
		e.releaseAt = n.now().Add(n.waits.linger)
		if err := n.host.set(uid, nil); err != nil {
			return 0, namespaceFailure(err)
		}
	}
	if wait := e.releaseAt.Sub(n.now()); wait > 0 {
		return wait, nil
	}
	if err := n.kernel.Remove(e.target.Pod.Netns); err != nil && !gone(err) {
		return 0, namespaceFailure(err)
	}
	return 0, n.clear(uid, e)
}

// forget drops all that was done for a pod that is gone.
func (n *enroller) forget(ctx context.Context, uid string) error {
	n.pods.unset(uid)
	e, err := n.pods.existing(ctx, uid)
	if err != nil {
		return err
	}
	if e == nil {
		return n.host.set(uid, nil)
	}
	defer e.lock.unlock()
	return n.clear(uid, e)
}

// forgetSandbox is forget, if the pod's network namespace still is the given one. A pod may have a new one by now, which
// CNI ADD has just captured. Without a given one (a runtime that cleans up after a reboot knows none), it is forget if
// the one that we know no longer exists.
func (n *enroller) forgetSandbox(ctx context.Context, uid, netns string) error {
	e, err := n.pods.existing(ctx, uid)
	if err != nil || e == nil {
		return err
	}
	defer e.lock.unlock()
	ours := e.target.Pod.Netns
	if netns != "" && netns != ours {
		return nil
	}
	if netns == "" && ours != "" {
		if _, err := n.kernel.Has(ours); !gone(err) {
			return nil
		}
	}
	return n.clear(uid, e)
}

// clear removes listeners, identity and the node's rules for a pod; the entry's lock is held.
func (n *enroller) clear(uid string, e *entry) error {
	listeners := translate.ListenerNames(uid)
	updates := make([]xds.Update, 0, len(listeners))
	for _, name := range listeners {
		updates = append(updates, xds.Gone(xds.ID{TypeURL: xds.TypeListener, Name: name}))
	}
	n.proxy.SetLocal(xds.TypeListener, updates)
	if e.identity != "" {
		n.certificates.Unwant(e.identity)
	}
	n.pods.drop(uid, e)
	return n.host.set(uid, nil)
}

// programmed tells what was done for a pod.
type programmed struct {
	target               Target
	redirected, complete bool
}

// current is what was done for a pod so far; it does not wait for what is under way.
func (n *enroller) current(ctx context.Context, uid string) (programmed, error) {
	e, err := n.pods.existing(ctx, uid)
	if err != nil || e == nil {
		return programmed{}, err
	}
	defer e.lock.unlock()
	return programmed{target: e.target, redirected: e.redirected, complete: e.complete}, nil
}

// causeOf is the label of a failure.
func causeOf(err error) string {
	var f *CaptureError
	if errors.As(err, &f) {
		return f.Cause
	}
	return "Other"
}
