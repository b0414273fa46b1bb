// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Enforcement says who carries an AuthorizationPolicy out for one ancestor, and what that changes. Where the ancestor
// isn't accepted, it is empty.
type Enforcement struct {
	// What the policy is: of level Application (else Network), with action DENY (else ALLOW), only tried.
	Application, Deny, DryRun bool
	// Pods whose nodes' proxies carry it out, or let in nobody but waypoints that do; nil: it is for none.
	Pods *GuardedPods
	// Waypoints that carry it out, sorted.
	Waypoints []GuardingWaypoint
	// Closed are ports of Services at which pods let nobody in, for requests can't be decided on; sorted.
	Closed []ClosedPort
}

// GuardedPods are the pods that policies are for. Policies for the same pods share it.
type GuardedPods struct {
	// Name tells it from others, and stays while pods come and go: what the pods are chosen by.
	Name string
	// Captured pods are guarded by the proxies of their nodes, Uncaptured ones by nothing; sorted. Pods without an
	// address, and finished ones, are in neither: nobody can connect to them.
	Captured   []GuardedPod
	Uncaptured []cluster.Key
}

// GuardedPod is a pod, and the node whose proxy guards it.
type GuardedPod struct {
	Pod  cluster.Key
	Node string
}

// GuardingWaypoint is a waypoint whose proxies decide.
type GuardingWaypoint struct {
	Gateway cluster.Key
	// Tables are the ports whose route tables say what is refused, sorted.
	Tables []model.ServicePort
	// TCP: some port is passed on as it is, and decided on by connections.
	TCP bool
}

// ClosedPort is a port at which no request can be decided on.
type ClosedPort struct {
	Port model.ServicePort
	// Reason of the condition, and why it is so.
	Verdict
}

// guardedPods sorts pods by whether they are captured.
func (i *Ingest) guardedPods(c *memo.Ctx, name string, pods []cluster.Key) *GuardedPods {
	out := &GuardedPods{Name: name}
	for _, key := range pods {
		pod, ok := i.store.Pods.Get(c, key)
		switch {
		case !ok, member.Finished(pod), len(pod.Status.PodIPs) == 0:
		case member.Captured(pod):
			out.Captured = append(out.Captured, GuardedPod{Pod: key, Node: pod.Spec.NodeName})
		default:
			out.Uncaptured = append(out.Uncaptured, key)
		}
	}
	slices.SortFunc(out.Captured, func(a, b GuardedPod) int { return byName(a.Pod, b.Pod) })
	slices.SortFunc(out.Uncaptured, byName)
	return out
}

func byName(a, b cluster.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}
