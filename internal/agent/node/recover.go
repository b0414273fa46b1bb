// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
)

const (
	// runtimeWait bounds the wait for the container runtime at start.
	runtimeWait = 30 * time.Second
	// runtimeRetry is how often it is asked meanwhile.
	runtimeRetry = time.Second
)

// recover sets the listeners of all pods that may be captured already, and removes rules from the namespaces of those that
// no longer should be. Then the proxy's list is complete: one that ran on while the agent was away keeps its listeners.
func (r *reconciler) recover(ctx context.Context, netnsDir string) error {
	pods := &corev1.PodList{}
	if err := r.client.List(ctx, pods); err != nil {
		return fmt.Errorf("list the pods of this node: %w", err)
	}
	wanted := map[string]bool{}
	complete := true
	for i := range pods.Items {
		path, err := r.recoverPod(ctx, &pods.Items[i])
		if err != nil {
			r.log.Info("a pod is taken up later", "pod", client.ObjectKeyFromObject(&pods.Items[i]), "reason", err.Error())
			complete = false
		}
		wanted[path] = true
	}
	if complete {
		r.sweep(netnsDir, wanted)
	}
	return nil
}

// recoverPod returns the pod's network namespace if it may stay captured.
func (r *reconciler) recoverPod(ctx context.Context, pod *corev1.Pod) (string, error) {
	d, mesh, err := r.decide(ctx, pod)
	if err != nil || d.Action == Release {
		return "", err
	}
	host, err := r.netnsPatiently(ctx, string(pod.UID))
	if errors.Is(err, netns.ErrNoSandbox) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	path, ips := r.seen(host), podIPs(pod)
	if mesh == nil || len(ips) == 0 {
		return path, nil
	}
	redirected, err := r.kernel.Has(path)
	if err != nil || d.Action == Hold && !redirected {
		return path, nil //nolint:nilerr // a namespace that is gone needs nothing; another error shows when it is captured
	}
	t := newTarget(pod, mesh, d, path, ips)
	r.setStatus(pod, enrolling(programmed{redirected: redirected}), d, t)
	return path, r.prime(ctx, t, redirected)
}

// netnsPatiently waits for a container runtime that is starting.
func (r *reconciler) netnsPatiently(ctx context.Context, uid string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, runtimeWait)
	defer cancel()
	for {
		path, err := r.sandboxes.Netns(ctx, uid)
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

// sweep removes our rules from all other namespaces of the node's pods.
func (r *reconciler) sweep(netnsDir string, keep map[string]bool) {
	for _, path := range namespacesIn(netnsDir) {
		if keep[path] {
			continue
		}
		if has, err := r.kernel.Has(path); err != nil || !has {
			continue
		}
		if err := r.kernel.Remove(path); err != nil && !gone(err) {
			r.log.Error(err, "rules of an earlier run stay in a network namespace", "netns", path)
			continue
		}
		r.log.Info("removed rules of an earlier run", "netns", path)
	}
}

// namespacesIn lists the network namespaces that the runtime keeps in a directory.
func namespacesIn(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, filepath.Join(dir, e.Name()))
	}
	return out
}
