// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"errors"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/member"
)

// reconcileWaypoint has a pod served as a waypoint if it is one. Who else has its labels gains nothing by it: what can
// be asked for there are connections of the same pod.
func (f *Follower) reconcileWaypoint(ctx context.Context, pod *corev1.Pod, d member.Decision) error {
	name, ips := client.ObjectKeyFromObject(pod), podIPs(pod)
	switch {
	case f.waypoints == nil:
		return nil
	case d.Reason != v1alpha1.PodReasonProxy:
		f.waypoints.Drop(name)
		return nil
	case len(ips) == 0: // it comes here again with its addresses
		return nil
	}
	which := fmt.Sprint(pod.UID, ips)
	if f.waypoints.Serves(name, which) {
		return nil
	}
	path, err := f.sandboxes.Netns(ctx, sandboxOf(pod))
	if errors.Is(err, netns.ErrNoSandbox) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find the network namespace of the waypoint's pod: %w", err)
	}
	return f.waypoints.Serve(name, which, f.seen(path))
}

// DropWaypoints leaves all waypoints to another agent.
func (f *Follower) DropWaypoints() {
	if f.waypoints != nil {
		f.waypoints.Close()
	}
}

func (f *Follower) dropWaypoint(pod types.NamespacedName) {
	if f.waypoints != nil {
		f.waypoints.Drop(pod)
	}
}
