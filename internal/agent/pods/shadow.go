// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/member"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

// Shadow has the proxy listen in all pods that the agent captured that is in charge still, and no longer in others. It
// changes nothing else.
func (f *Follower) Shadow(ctx context.Context) error {
	known := map[string]bool{}
	err := f.eachCaptured(ctx, func(c capturedPod) error {
		known[string(c.pod.UID)] = true
		ips := podIPs(c.pod)
		if len(ips) == 0 { // it has just started, and is taken over like others that have
			return nil
		}
		t := enrol.NewTarget(c.pod, c.mesh, c.decision, c.netns, ips)
		f.setStatus(c.pod, stateStarting, c.decision, t)
		return f.enroller.Shadow(ctx, t)
	})
	if err != nil { // those that aren't known may be captured
		return err
	}
	for _, s := range f.statuses.snapshot() {
		if !known[s.UID] {
			f.statuses.unset(s.UID)
			err = errors.Join(err, f.enroller.Withdraw(ctx, s.UID))
		}
	}
	return err
}

// Unserved names the captured pods that a proxy doesn't serve, by the listeners that take connections there.
func (f *Follower) Unserved(ctx context.Context, listening map[string]bool) (unserved []string, err error) {
	err = f.eachCaptured(ctx, func(c capturedPod) error {
		for _, name := range translatenode.ListenerNames(string(c.pod.UID)) {
			// One that never had a certificate gets none for being served by another proxy.
			if !listening[name] && (member.Captured(c.pod) || !translatenode.TakesMTLS(name)) {
				unserved = append(unserved, client.ObjectKeyFromObject(c.pod).String())
				return nil
			}
		}
		return nil
	})
	slices.Sort(unserved)
	return unserved, err
}

// capturedPod is one whose network namespace redirects to the node's proxy.
type capturedPod struct {
	pod      *corev1.Pod
	mesh     *v1alpha1.Mesh
	decision member.Decision
	netns    string
}

// eachCaptured calls a function for each captured pod that may stay so.
func (f *Follower) eachCaptured(ctx context.Context, do func(capturedPod) error) error {
	pods := &corev1.PodList{}
	if err := f.client.List(ctx, pods); err != nil {
		return fmt.Errorf("list the pods of this node: %w", err)
	}
	for i := range pods.Items {
		c := capturedPod{pod: &pods.Items[i]}
		var err error
		if c.decision, c.mesh, err = f.decide(ctx, c.pod); err != nil {
			return err
		}
		if c.decision.Action == member.Release || c.mesh == nil {
			continue
		}
		host, err := f.sandboxes.Netns(ctx, sandboxOf(c.pod))
		if errors.Is(err, netns.ErrNoSandbox) {
			continue
		}
		if err != nil {
			return fmt.Errorf("find the network namespace of pod %s: %w", client.ObjectKeyFromObject(c.pod), err)
		}
		c.netns = f.seen(host)
		redirected, err := f.kernel.Redirects(c.netns)
		if netns.Gone(err) || err == nil && !redirected {
			continue
		}
		if err == nil {
			err = do(c)
		}
		if err != nil {
			return fmt.Errorf("pod %s: %w", client.ObjectKeyFromObject(c.pod), err)
		}
	}
	return nil
}
