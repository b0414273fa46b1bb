// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/member"
)

// Reconcile implements reconcile.Reconciler.
func (f *Follower) Reconcile(ctx context.Context, req reconcile.Request) (reconcile.Result, error) {
	if err := f.Await(ctx); err != nil {
		return reconcile.Result{}, err
	}
	pod := &corev1.Pod{}
	if err := client.IgnoreNotFound(f.client.Get(ctx, req.NamespacedName, pod)); err != nil {
		return reconcile.Result{}, err
	}
	later, err := f.forgetOthers(ctx, req, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	f.statuses.shown(string(pod.UID))
	if starts := f.statuses.unshown(req.NamespacedName, f.waits.Shown); starts != nil {
		// Senders hear of it no later than that it is ready, whatever the watch is at.
		pod = starts.DeepCopy()
	}
	if pod.UID == "" { // it is gone
		f.dropWaypoint(req.NamespacedName)
		return reconcile.Result{RequeueAfter: later}, nil
	}
	d, mesh, err := f.decide(ctx, pod)
	if err != nil {
		return reconcile.Result{}, err
	}
	result, err := f.bring(ctx, pod, mesh, d)
	if later > 0 && (result.RequeueAfter == 0 || later < result.RequeueAfter) {
		result.RequeueAfter = later
	}
	return result, errors.Join(err, f.reconcileWaypoint(ctx, pod, d))
}

// forgetOthers forgets the pods of a name that the watch doesn't show, beside the one that it does, if any. One that
// has just started it may not show yet: then it says when to look again.
func (f *Follower) forgetOthers(
	ctx context.Context, req reconcile.Request, shown string,
) (later time.Duration, err error) {
	for _, uid := range f.statuses.uids(req.Namespace, req.Name) {
		if uid == shown {
			continue
		}
		if wait := f.statuses.awaited(uid, f.waits.Shown); wait > 0 {
			later = max(later, wait)
			continue
		}
		if err := f.Forget(ctx, uid); err != nil {
			return 0, err
		}
	}
	return later, nil
}

// bring a pod to where it should be.
func (f *Follower) bring(
	ctx context.Context, pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision,
) (reconcile.Result, error) {
	switch d.Action {
	case member.Capture:
		return f.reconcileCapture(ctx, pod, mesh, d)
	case member.Release:
		return f.reconcileRelease(ctx, pod, d)
	default:
		return reconcile.Result{}, f.reconcileHold(ctx, pod, d)
	}
}

// reconcileHold notes a pod's status and changes nothing.
func (f *Follower) reconcileHold(ctx context.Context, pod *corev1.Pod, d member.Decision) error {
	have, err := f.enroller.Current(ctx, string(pod.UID))
	if err != nil {
		return err
	}
	state := StateNotCaptured
	if have.Redirected {
		state = StateCaptured
	}
	f.setStatus(pod, state, d, have.Target)
	return nil
}

func (f *Follower) reconcileCapture(
	ctx context.Context, pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision,
) (reconcile.Result, error) {
	ctx, cancel := context.WithTimeout(ctx, f.waits.Attempt)
	defer cancel()
	have, err := f.enroller.Current(ctx, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	t, err := f.target(ctx, pod, mesh, d, have)
	if errors.Is(err, netns.ErrNoSandbox) {
		// The pod has no network yet, or lost it. CNI ADD, or the pod's next status, brings it here again.
		if lost := have.Target.Pod.Netns; lost != "" {
			if wait := f.stillStarts(string(pod.UID), lost); wait > 0 {
				return reconcile.Result{RequeueAfter: wait}, nil
			}
			if err := f.enroller.ForgetSandbox(ctx, string(pod.UID), lost); err != nil {
				return reconcile.Result{}, err
			}
		}
		f.setStatus(pod, stateWaiting, member.Decision{
			Reason: v1alpha1.PodReasonAwaitingSandbox, Message: err.Error(),
			Strict: d.Strict, Except: d.Except, Closed: d.Closed,
		}, enrol.Target{})
		return reconcile.Result{RequeueAfter: enrol.VerifyEvery}, nil
	}
	if err == nil {
		err = enrol.InRanges(mesh, t.Pod.IPs)
	}
	if err == nil {
		if !have.Complete {
			f.setStatus(pod, enrolling(have), d, t)
		}
		err = f.enroller.Capture(ctx, t, enrol.Running)
	}
	if err != nil {
		return reconcile.Result{}, f.captureFailed(ctx, pod, have, t, d, err)
	}
	f.setStatus(pod, StateCaptured, d, t)
	if !have.Complete {
		f.log.Info("captured a pod", "pod", client.ObjectKeyFromObject(pod), "netns", t.Pod.Netns, "mode", mode(d))
	}
	if err := f.setCondition(ctx, pod, corev1.ConditionTrue, v1alpha1.PodReasonCaptured, d.Message); err != nil {
		return reconcile.Result{}, err
	}
	f.warn(pod, d)
	return reconcile.Result{RequeueAfter: f.waits.Verify + rand.N(f.waits.Verify/4+1)}, nil //nolint:gosec // spreads work
}

// stillStarts is how long a sandbox has yet to become known that CNI ADD has captured: the runtime names it when it is
// complete, and the pod's status has the addresses of the one before until then.
func (f *Follower) stillStarts(uid, path string) time.Duration {
	if _, err := f.kernel.Has(path); netns.Gone(err) {
		return 0
	}
	return f.statuses.starting(uid, f.waits.Shown)
}

func enrolling(have enrol.Done) State {
	if have.Redirected {
		return stateStarting
	}
	return stateEnrolling
}

// target is how the pod should be captured: in the namespace that is known already while its addresses stay, else where
// the runtime says.
func (f *Follower) target(
	ctx context.Context, pod *corev1.Pod, mesh *v1alpha1.Mesh, d member.Decision, have enrol.Done,
) (enrol.Target, error) {
	ips, path := podIPs(pod), have.Target.Pod.Netns
	if path != "" && (len(ips) == 0 || slices.Equal(ips, have.Target.Pod.IPs)) {
		if _, err := f.kernel.Has(path); !netns.Gone(err) {
			return enrol.NewTarget(pod, mesh, d, path, have.Target.Pod.IPs), nil
		}
	}
	if len(ips) == 0 {
		return enrol.Target{}, fmt.Errorf("the pod has no address yet: %w", netns.ErrNoSandbox)
	}
	path, err := f.sandboxes.Netns(ctx, sandboxOf(pod))
	if err != nil {
		if !errors.Is(err, netns.ErrNoSandbox) {
			err = enrol.Fail(enrol.CauseSandbox, "see whether the container runtime answers on this node",
				fmt.Errorf("find the pod's network namespace: %w", err))
		}
		return enrol.Target{}, err
	}
	return enrol.NewTarget(pod, mesh, d, f.seen(path), ips), nil
}

// captureFailed says so on the pod, unless it still is captured as before; the error makes the queue try again.
func (f *Follower) captureFailed(
	ctx context.Context, pod *corev1.Pod, have enrol.Done, t enrol.Target, d member.Decision, cause error,
) error {
	f.reports.Failed(cause)
	failed := d
	failed.Reason, failed.Message = v1alpha1.PodReasonCaptureFailed, cause.Error()
	f.setStatus(pod, StateFailed, failed, t)
	if have.Complete || have.Redirected && member.Captured(pod) {
		return cause
	}
	// The attempt's own time may be over; saying so must not fail for that.
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), attemptTimeout)
	defer cancel()
	return errors.Join(cause, f.setCondition(ctx, pod, corev1.ConditionFalse, v1alpha1.PodReasonCaptureFailed,
		"Not captured, trying again: "+cause.Error()))
}

func (f *Follower) reconcileRelease(ctx context.Context, pod *corev1.Pod, d member.Decision) (reconcile.Result, error) {
	if d.Reason == v1alpha1.PodReasonFinished {
		// Nothing runs in it, and nobody sends to it.
		return reconcile.Result{}, f.Forget(ctx, string(pod.UID))
	}
	// Senders must hear first that the pod no longer takes mTLS; and people, what nobody chose.
	if member.Captured(pod) || d.Reason == v1alpha1.PodReasonReservedPort {
		if err := f.setCondition(ctx, pod, corev1.ConditionFalse, d.Reason, "Not captured: "+d.Message); err != nil {
			return reconcile.Result{}, err
		}
	}
	have, err := f.enroller.Current(ctx, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	if have.Target.Pod.Netns == "" && member.Captured(pod) {
		return reconcile.Result{}, f.releaseUnknown(ctx, pod, d)
	}
	wait, err := f.enroller.Release(ctx, string(pod.UID))
	if err != nil {
		return reconcile.Result{}, err
	}
	state := StateNotCaptured
	if wait > 0 {
		state = stateReleasing
	}
	if have.Redirected {
		f.log.Info("released a pod", "pod", client.ObjectKeyFromObject(pod), "reason", d.Reason)
	}
	if f.worthNoting(pod, d) || wait > 0 {
		f.setStatus(pod, state, d, have.Target)
	} else {
		f.statuses.unset(string(pod.UID))
	}
	return reconcile.Result{RequeueAfter: wait}, nil
}

// releaseUnknown lets a pod go that an earlier run of the agent captured.
func (f *Follower) releaseUnknown(ctx context.Context, pod *corev1.Pod, d member.Decision) error {
	path, err := f.sandboxes.Netns(ctx, sandboxOf(pod))
	if errors.Is(err, netns.ErrNoSandbox) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the pod's network namespace: %w", err)
	}
	if err := f.kernel.Remove(f.seen(path)); err != nil && !netns.Gone(err) {
		return err
	}
	f.log.Info("released a pod", "pod", client.ObjectKeyFromObject(pod), "reason", d.Reason)
	return f.host.Set(string(pod.UID), nil)
}
