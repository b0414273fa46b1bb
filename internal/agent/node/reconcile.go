// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// attemptTimeout bounds one attempt to enrol a pod, so that one that hangs doesn't keep others waiting.
const attemptTimeout = 20 * time.Second

// reconciler brings each pod of the node to where the API says it should be.
type reconciler struct {
	*enroller
	client    client.Client
	sandboxes Sandboxes
	metrics   *metrics
	events    events.EventRecorder
	system    string
	// ready is closed once what an earlier run left is taken up.
	ready chan struct{}
	// seen is the path of a network namespace as agent and proxy see it.
	seen func(hostPath string) string
}

// Reconcile implements reconcile.Reconciler.
func (r *reconciler) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	select {
	case <-r.ready:
	case <-ctx.Done():
		return reconcile.Result{}, ctx.Err()
	}
	pod := &corev1.Pod{}
	if err := client.IgnoreNotFound(r.client.Get(ctx, req.NamespacedName, pod)); err != nil {
		return reconcile.Result{}, err
	}
	for _, uid := range r.pods.uids(req.Namespace, req.Name) {
		if uid == string(pod.UID) {
			continue
		}
		if err := r.forget(ctx, uid); err != nil {
			return reconcile.Result{}, err
		}
	}
	if pod.UID == "" { // it is gone
		return reconcile.Result{}, nil
	}
	d, mesh, err := r.decide(ctx, pod)
	if err != nil {
		return reconcile.Result{}, err
	}
	switch d.Action {
	case member.Capture:
		return r.reconcileCapture(ctx, pod, mesh, d)
	case member.Release:
		return r.reconcileRelease(ctx, pod, d)
	default:
		return reconcile.Result{}, r.reconcileHold(ctx, pod, d)
	}
}

func (r *reconciler) decide(ctx context.Context, pod *corev1.Pod) (member.Decision, *v1alpha1.Mesh, error) {
	mesh, err := r.mesh(ctx)
	if err != nil {
		return member.Decision{}, nil, err
	}
	ns := &corev1.Namespace{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: pod.Namespace}, ns); apierrors.IsNotFound(err) {
		ns = nil
	} else if err != nil {
		return member.Decision{}, nil, err
	}
	return member.Decide(pod, ns, mesh, r.system), mesh, nil
}

// mesh is the Mesh, or nil if there is none.
func (r *reconciler) mesh(ctx context.Context) (*v1alpha1.Mesh, error) {
	mesh := &v1alpha1.Mesh{}
	if err := r.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, mesh); err != nil {
		return nil, client.IgnoreNotFound(err)
	}
	return mesh, nil
}

// reconcileHold notes a pod's status and changes nothing.
func (r *reconciler) reconcileHold(ctx context.Context, pod *corev1.Pod, d member.Decision) error {
	have, err := r.current(ctx, string(pod.UID))
	if err != nil {
		return err
	}
	state := StateNotCaptured
	if have.redirected {
		state = StateCaptured
	}
	r.setStatus(pod, state, d, have.target)
	return nil
}

func (r *reconciler) reconcileCapture(ctx context.Context, pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision) (reconcile.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, r.waits.attempt)
	defer cancel()
	have, err := r.current(ctx, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	t, err := r.target(ctx, pod, mesh, d, have)
	if errors.Is(err, netns.ErrNoSandbox) {
		// The pod has no network yet, or lost it. CNI ADD, or the pod's next status, brings it here again.
		if lost := have.target.Pod.Netns; lost != "" {
			if err := r.forgetSandbox(ctx, string(pod.UID), lost); err != nil {
				return reconcile.Result{}, err
			}
		}
		r.setStatus(pod, StateWaiting, member.Decision{Reason: v1alpha1.PodReasonAwaitingSandbox, Message: err.Error(), Strict: d.Strict}, Target{})
		return reconcile.Result{RequeueAfter: verifyEvery}, nil
	}
	if err == nil {
		err = inRanges(mesh, t.Pod.IPs)
	}
	if err == nil {
		if !have.complete {
			r.setStatus(pod, enrolling(have), d, t)
		}
		err = r.capture(ctx, t, running)
	}
	if err != nil {
		return reconcile.Result{}, r.captureFailed(ctx, pod, have, t, d, err)
	}
	r.setStatus(pod, StateCaptured, d, t)
	if !have.complete {
		r.log.Info("captured a pod", "pod", client.ObjectKeyFromObject(pod), "netns", t.Pod.Netns, "mode", mode(d))
	}
	if err := r.setCondition(ctx, pod, corev1.ConditionTrue, v1alpha1.PodReasonCaptured, d.Message); err != nil {
		return reconcile.Result{}, err
	}
	r.warn(pod, d)
	return reconcile.Result{RequeueAfter: r.waits.verify + rand.N(r.waits.verify/4+1)}, nil //nolint:gosec // to spread work
}

func enrolling(have programmed) State {
	if have.redirected {
		return StateStarting
	}
	return StateEnrolling
}

// target is how the pod should be captured: in the namespace that is known already while its addresses stay, else where
// the runtime says.
func (r *reconciler) target(ctx context.Context, pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision, have programmed) (Target, error) {
	ips, path := podIPs(pod), have.target.Pod.Netns
	if path != "" && (len(ips) == 0 || slices.Equal(ips, have.target.Pod.IPs)) {
		if _, err := r.kernel.Has(path); !gone(err) {
			return newTarget(pod, mesh, d, path, have.target.Pod.IPs), nil
		}
	}
	if len(ips) == 0 {
		return Target{}, fmt.Errorf("the pod has no address yet: %w", netns.ErrNoSandbox)
	}
	path, err := r.sandboxes.Netns(ctx, sandboxOf(pod))
	if err != nil {
		if !errors.Is(err, netns.ErrNoSandbox) {
			err = fail(CauseSandbox, "see whether the container runtime answers on this node", fmt.Errorf("find the pod's network namespace: %w", err))
		}
		return Target{}, err
	}
	return newTarget(pod, mesh, d, r.seen(path), ips), nil
}

// captureFailed says so on the pod, unless it still is captured as before; the error makes the queue try again.
func (r *reconciler) captureFailed(ctx context.Context, pod *corev1.Pod, have programmed, t Target, d member.Decision, cause error) error {
	r.metrics.failures.WithLabelValues(causeOf(cause)).Inc()
	failed := d
	failed.Reason, failed.Message = v1alpha1.PodReasonCaptureFailed, cause.Error()
	r.setStatus(pod, StateFailed, failed, t)
	if have.complete || have.redirected && member.Captured(pod) {
		return cause
	}
	// The attempt's own time may be over; saying so must not fail for that.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	return errors.Join(cause, r.setCondition(ctx, pod, corev1.ConditionFalse, v1alpha1.PodReasonCaptureFailed, "Not captured, trying again: "+cause.Error()))
}

func (r *reconciler) reconcileRelease(ctx context.Context, pod *corev1.Pod, d member.Decision) (reconcile.Result, error) {
	if d.Reason == v1alpha1.PodReasonFinished {
		// Nothing runs in it, and nobody sends to it.
		return reconcile.Result{}, r.forget(ctx, string(pod.UID))
	}
	// Senders must hear first that the pod no longer takes mTLS; and people, what nobody chose.
	if member.Captured(pod) || d.Reason == v1alpha1.PodReasonReservedPort {
		if err := r.setCondition(ctx, pod, corev1.ConditionFalse, d.Reason, "Not captured: "+d.Message); err != nil {
			return reconcile.Result{}, err
		}
	}
	have, err := r.current(ctx, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	if have.target.Pod.Netns == "" && member.Captured(pod) {
		return reconcile.Result{}, r.releaseUnknown(ctx, pod, d)
	}
	wait, err := r.release(ctx, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	state := StateNotCaptured
	if wait > 0 {
		state = StateReleasing
	}
	if have.redirected {
		r.log.Info("let a pod go", "pod", client.ObjectKeyFromObject(pod), "reason", d.Reason)
	}
	if r.worthNoting(pod, d) || wait > 0 {
		r.setStatus(pod, state, d, have.target)
	} else {
		r.pods.unset(string(pod.UID))
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// releaseUnknown lets a pod go that an earlier run of the agent captured.
func (r *reconciler) releaseUnknown(ctx context.Context, pod *corev1.Pod, d member.Decision) error {
	path, err := r.sandboxes.Netns(ctx, sandboxOf(pod))
	if errors.Is(err, netns.ErrNoSandbox) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the pod's network namespace: %w", err)
	}
	if err := r.kernel.Remove(r.seen(path)); err != nil && !gone(err) {
		return err
	}
	r.log.Info("let a pod go", "pod", client.ObjectKeyFromObject(pod), "reason", d.Reason)
	return r.host.set(string(pod.UID), nil)
}

// worthNoting tells whether people who look at the agent want to see why a pod isn't captured.
func (r *reconciler) worthNoting(pod *corev1.Pod, d member.Decision) bool {
	switch d.Reason {
	case v1alpha1.PodReasonOptedOut, v1alpha1.PodReasonProxy, v1alpha1.PodReasonReservedPort:
		return true
	default:
		return member.Condition(pod) != nil
	}
}

func (r *reconciler) setStatus(pod *corev1.Pod, state State, d member.Decision, t Target) {
	s := PodStatus{
		Namespace: pod.Namespace, Name: pod.Name, UID: string(pod.UID),
		State: state, Reason: d.Reason, Message: d.Message, Netns: t.Pod.Netns, Identity: t.Pod.Identity,
	}
	if state != StateNotCaptured {
		s.Mode = mode(d)
	}
	r.pods.set(s)
}

func mode(d member.Decision) string {
	if d.Strict {
		return names.MTLSStrict
	}
	return names.MTLSPermissive
}

// warn of what a person should mend, once: when the pod's condition did not say it before.
func (r *reconciler) warn(pod *corev1.Pod, d member.Decision) {
	if before := member.Condition(pod); d.Problem == "" || before != nil && strings.Contains(before.Message, d.Problem) {
		return
	}
	r.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonUnknownLabel, "Capture", "%s", d.Problem)
}

// setCondition says PodConditionCaptured, and adds an Event where its status or reason changes: kubectl describe shows a
// condition without its message. A failure that goes on is told each time: Events are kept for an hour, as one with a
// count.
func (r *reconciler) setCondition(ctx context.Context, pod *corev1.Pod, is corev1.ConditionStatus, reason, message string) error {
	if reason == v1alpha1.PodReasonCaptureFailed {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, reason, "Capture", "%s", conditions.Note(message))
	}
	before, after := member.Condition(pod), pod.DeepCopy()
	written, err := writeCondition(ctx, r.client, after, v1alpha1.PodConditionCaptured, is, reason, message)
	if apierrors.IsNotFound(err) || apierrors.IsConflict(err) {
		return nil // gone, or another pod of the same name: the watch says so soon
	}
	news := before == nil || before.Status != is || before.Reason != reason
	if written && news && reason != v1alpha1.PodReasonCaptureFailed {
		kind := corev1.EventTypeNormal
		if reason == v1alpha1.PodReasonReservedPort {
			kind = corev1.EventTypeWarning // nobody asked for it
		}
		r.events.Eventf(after, nil, kind, reason, "Capture", "%s", conditions.Note(message))
	}
	return err
}

// addresses from CNI come without those that the API will add; they are what is there.
func addresses(ips []netip.Addr) []netip.Addr {
	var out []netip.Addr
	for _, ip := range ips {
		if ip = ip.Unmap(); ip.IsValid() && !slices.Contains(out, ip) {
			out = append(out, ip)
		}
	}
	return out
}
