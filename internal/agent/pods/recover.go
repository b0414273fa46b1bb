// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/member"
)

const (
	// runtimeWait bounds the wait for the container runtime at start, for all pods together.
	runtimeWait = 30 * time.Second
	// runtimeRetry is how often it is asked meanwhile.
	runtimeRetry = time.Second
	// orphanGrace is how long rules stay that belong to no pod that the container runtime names: it names a pod only once
	// its sandbox is complete, which comes after CNI ADD. Kubelet waits four minutes for that.
	orphanGrace = 5 * time.Minute
)

// Recover sets the listeners of all pods that may be captured already. Then the proxy's list is complete: one that ran
// on while the agent was away keeps its listeners. It removes rules from the namespaces of pods that no longer should
// be captured, and returns the namespaces whose rules belong to no known pod.
func (f *Follower) Recover(ctx context.Context, netnsDir string) (orphans []string, err error) {
	pods := &corev1.PodList{}
	if err := f.client.List(ctx, pods); err != nil {
		return nil, fmt.Errorf("list the pods of this node: %w", err)
	}
	patience, cancel := context.WithTimeout(ctx, f.waits.Runtime)
	defer cancel()
	wanted := map[string]bool{}
	for i := range pods.Items {
		path, err := f.recoverPod(ctx, patience, &pods.Items[i])
		if err != nil {
			f.log.Info("a pod will be captured later", "pod", client.ObjectKeyFromObject(&pods.Items[i]), "reason", err.Error())
		}
		wanted[path] = true
	}
	// It is tried again later, and kubelet's probes are no reason to keep all pods waiting.
	if err := f.host.Repair(); err != nil {
		f.log.Error(err, "the node's probe rules can't be set")
	}
	for _, path := range f.captured(netnsDir) {
		if !wanted[path] {
			orphans = append(orphans, path)
		}
	}
	if len(orphans) == 0 {
		return nil, nil
	}
	return f.sweep(patience, orphans, false), nil
}

// recoverPod returns the pod's network namespace if it may stay captured.
func (f *Follower) recoverPod(ctx, patience context.Context, pod *corev1.Pod) (string, error) {
	d, mesh, err := f.decide(ctx, pod)
	if err != nil || d.Action == member.Release {
		return "", err
	}
	ips := podIPs(pod)
	host, err := f.netnsPatiently(patience, pod)
	if errors.Is(err, netns.ErrNoSandbox) {
		return "", nil
	}
	if err != nil {
		// It may be captured, and its kubelet must not miss its probes until that is known.
		f.host.Note(string(pod.UID), enrol.Probes(pod, ips))
		return "", err
	}
	path := f.seen(host)
	if mesh == nil || len(ips) == 0 {
		return path, nil
	}
	redirected, err := f.kernel.Redirects(path)
	if err != nil || d.Action == member.Hold && !redirected {
		return path, nil //nolint:nilerr // a namespace that is gone needs nothing; another error shows when it is captured
	}
	t := enrol.NewTarget(pod, mesh, d, path, ips)
	f.setStatus(pod, enrolling(enrol.Done{Redirected: redirected}), d, t)
	return path, f.enroller.Prime(ctx, t, redirected)
}

// netnsPatiently waits for a container runtime that is starting.
func (f *Follower) netnsPatiently(ctx context.Context, pod *corev1.Pod) (string, error) {
	for {
		path, err := f.sandboxes.Netns(ctx, sandboxOf(pod))
		if err == nil || errors.Is(err, netns.ErrNoSandbox) {
			return path, err
		}
		select {
		case <-ctx.Done():
			return "", err
		case <-time.After(runtimeRetry):
		}
	}
}

// SweepLater removes the rules of orphans that still belong to no pod after a while.
func (f *Follower) SweepLater(ctx context.Context, orphans []string) error {
	for len(orphans) > 0 {
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(f.waits.Orphan):
		}
		orphans = f.sweep(ctx, orphans, true)
	}
	return nil
}

// sweep removes our rules from those of the namespaces that belong to a pod that must not be captured, and, at the
// last, from those that belong to no pod. It returns those that may belong to a pod that is not known yet.
func (f *Follower) sweep(ctx context.Context, orphans []string, last bool) []string {
	keep, remove, err := f.owned(ctx)
	if err != nil {
		f.log.Info("keeping the rules of an earlier run for now", "reason", err.Error())
		return orphans
	}
	var later []string
	for _, path := range orphans {
		switch {
		case keep[path]:
		case remove[path] || last:
			f.removeRules(path)
		default:
			later = append(later, path)
		}
	}
	return later
}

// owned are the network namespaces of the node's pods: those that may be captured, and those that must not be.
func (f *Follower) owned(ctx context.Context) (keep, remove map[string]bool, err error) {
	pods := &corev1.PodList{}
	if err := f.client.List(ctx, pods); err != nil {
		return nil, nil, fmt.Errorf("list the pods of this node: %w", err)
	}
	keep, remove = map[string]bool{}, map[string]bool{}
	for _, s := range f.statuses.snapshot() {
		keep[s.Netns] = true
	}
	for i := range pods.Items {
		pod := &pods.Items[i]
		d, _, err := f.decide(ctx, pod)
		if err != nil {
			return nil, nil, err
		}
		if d.Reason == v1alpha1.PodReasonHostNetwork || d.Reason == v1alpha1.PodReasonFinished {
			continue
		}
		path, err := f.sandboxes.Netns(ctx, sandboxOf(pod))
		switch {
		case errors.Is(err, netns.ErrNoSandbox):
		case err != nil:
			return nil, nil, err
		case d.Action == member.Release:
			remove[f.seen(path)] = true
		default:
			keep[f.seen(path)] = true
		}
	}
	return keep, remove, nil
}

func (f *Follower) removeRules(path string) {
	if err := f.kernel.Remove(path); err != nil && !netns.Gone(err) {
		f.log.Error(err, "failed to remove the rules of an earlier run in a network namespace", "netns", path)
		return
	}
	f.log.Info("removed rules of an earlier run", "netns", path)
}

// captured lists the network namespaces with rules of ours.
func (f *Follower) captured(netnsDir string) []string {
	var out []string
	for _, path := range netns.List(netnsDir) {
		if has, err := f.kernel.Has(path); err == nil && has {
			out = append(out, path)
		}
	}
	return out
}
