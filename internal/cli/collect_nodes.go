// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

func (k *collector) readNodes(ctx context.Context) {
	var nodes corev1.NodeList
	k.list(ctx, whatNodes, &nodes)
	if k.unread[whatNodes] {
		return
	}
	k.report.Nodes = []nodeReport{}
	at := map[string]*nodeReport{}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		r := &nodeReport{Name: n.Name}
		if !k.meshUnknown {
			r.Wanted = new(k.wantsProxy(n))
		}
		if !k.unread[whatPods] {
			r.Ready = new(false)
		}
		if !k.unread[whatPods] && !k.unread[whatNamespaces] {
			r.Captured = new(0)
		}
		at[n.Name] = r
	}
	for i := range k.pods {
		k.countPod(&k.pods[i], at)
	}
	for _, n := range at {
		k.report.Nodes = append(k.report.Nodes, *n)
	}
	slices.SortFunc(k.report.Nodes, func(a, b nodeReport) int { return cmp.Compare(a.Name, b.Name) })
	k.judgeNodes()
}

// countPod adds a pod to what is said of its node.
func (k *collector) countPod(p *corev1.Pod, at map[string]*nodeReport) {
	if k.isNodeProxy(p) {
		n := at[nodeOf(p)]
		if n == nil {
			return
		}
		if t := conditions.TroubleOf(p, v1alpha1.PodConditionServing); t.Why != "" && !n.working() {
			n.why = t.Why
		}
		if p.Spec.NodeName != "" && !n.working() { // while one takes over from another, the ready one counts
			n.Proxy, *n.Ready = p.Namespace+"/"+p.Name, podReady(p)
		}
		return
	}
	n := at[p.Spec.NodeName]
	if n != nil && n.Captured != nil && waits(p, k.namespaces[p.Namespace]) {
		n.waiting = append(n.waiting, p.Namespace+"/"+p.Name)
	}
	if n == nil || n.Captured == nil || !shouldBeCaptured(p, k.namespaces[p.Namespace]) {
		return
	}
	if captured, reason := captureOf(p); captured {
		*n.Captured++
		k.countModes(p, n)
	} else {
		n.Uncaptured = append(n.Uncaptured, uncaptured{Pod: p.Namespace + "/" + p.Name, Reason: reason})
	}
}

// nodeOf is the node that a pod is on, or that its DaemonSet has made it for.
func nodeOf(p *corev1.Pod) string {
	if p.Spec.NodeName != "" || p.Spec.Affinity == nil || p.Spec.Affinity.NodeAffinity == nil ||
		p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution == nil {
		return p.Spec.NodeName
	}
	for _, t := range p.Spec.Affinity.NodeAffinity.RequiredDuringSchedulingIgnoredDuringExecution.NodeSelectorTerms {
		for _, f := range t.MatchFields {
			if f.Key == "metadata.name" && len(f.Values) == 1 {
				return f.Values[0]
			}
		}
	}
	return ""
}

// judgeNodes says what is wrong with nodes, and with the pods on them, once for all that have the same cause. Without a
// Mesh there is to be nothing on them, and what the Mesh says, or which pods there are, may not have been found out.
func (k *collector) judgeNodes() {
	if k.mesh == nil || k.unread[whatPods] {
		return
	}
	var missing, unready, alone groups
	for _, n := range k.report.Nodes {
		switch {
		case !n.wanted() && len(n.Uncaptured) > 0:
			k.problem(nodeProxyDown, "Node "+n.Name,
				"spec.node.nodeSelector of the Mesh excludes node %s, but enrolled pods run on it", n.Name)
		case !n.wanted():
		case n.Proxy == "":
			missing.add(n.why, n.Name)
		case !n.ready():
			unready.add(n.why, n.Name)
			alone.add(n.Name, n.Proxy)
		}
	}
	for _, why := range missing.words {
		if on := missing.members[why]; len(on) == 1 {
			k.problem(nodeProxyDown, "Node "+on[0], "node %s has no node proxy%s", on[0], because(why))
		} else {
			k.problem(nodeProxyDown, "", "%d nodes have no node proxy%s (%s)", len(on), because(why), enumerate(on))
		}
	}
	for _, why := range unready.words {
		if on := unready.members[why]; len(on) == 1 {
			k.problem(nodeProxyDown, "Node "+on[0], "the node proxy of %s (pod %s) is not ready%s", on[0],
				alone.members[on[0]][0], because(why))
		} else {
			k.problem(nodeProxyDown, "", "the node proxies of %d nodes are not ready%s (%s)", len(on), because(why),
				enumerate(on))
		}
	}
	k.judgeUncaptured()
}

// judgeUncaptured names the pods that are not captured, by what they have in common.
func (k *collector) judgeUncaptured() {
	var of groups
	on := map[string]string{}
	for _, n := range k.report.Nodes {
		var orphans []string
		for _, u := range n.Uncaptured {
			on[u.Pod] = n.Name
			if n.working() {
				of.add(u.Reason, u.Pod)
			} else {
				orphans = append(orphans, u.Pod)
			}
		}
		if len(orphans) > 0 {
			k.problem(podsUncaptured, "Node "+n.Name, "%s not captured, for node %s has no node proxy that is ready: %s",
				podsAre(len(orphans)), n.Name, enumerate(orphans))
		}
	}
	for _, n := range k.report.Nodes {
		if n.wanted() && !n.working() && len(n.waiting) > 0 {
			k.problem(podsUncaptured, "Node "+n.Name, "%s waiting to start, for node %s has no node proxy that is ready: %s",
				podsAre(len(n.waiting)), n.Name, enumerate(n.waiting))
		}
	}
	for _, why := range of.words {
		all := of.members[why]
		if len(all) == 1 {
			k.problem(podsUncaptured, "Pod "+all[0], "pod %s on node %s is not captured: %s", all[0], on[all[0]], why)
			continue
		}
		k.problem(podsUncaptured, "", "%s not captured (%s): %s", podsAre(len(all)), enumerate(all), why)
	}
}

func (k *collector) isNodeProxy(p *corev1.Pod) bool {
	return p.Namespace == k.system && p.Labels[names.LabelComponent] == names.ComponentNode && p.DeletionTimestamp == nil
}

func (k *collector) wantsProxy(n *corev1.Node) bool {
	if k.mesh == nil || k.mesh.DeletionTimestamp != nil {
		return false
	}
	if os := n.Labels[corev1.LabelOSStable]; os != "" && os != "linux" {
		return false
	}
	if k.mesh.Spec.Node == nil {
		return true
	}
	for key, value := range k.mesh.Spec.Node.NodeSelector {
		if n.Labels[key] != value {
			return false
		}
	}
	return true
}

// shouldBeCaptured tells whether a pod is a running member of the mesh.
func shouldBeCaptured(p *corev1.Pod, ns *corev1.Namespace) bool {
	return member.Is(p, ns) && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning
}

// waits tells whether a member of the mesh is on a node and hasn't started; without the node's agent it never does.
func waits(p *corev1.Pod, ns *corev1.Namespace) bool {
	return member.Is(p, ns) && p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodPending
}

// countModes says of a captured pod what it refuses.
func (k *collector) countModes(p *corev1.Pod, n *nodeReport) {
	d := member.Decide(p, k.namespaces[p.Namespace], k.mesh, k.system, k.policies...)
	switch {
	case len(d.Except) > 0:
		n.SomePorts++
	case d.Strict:
		n.Strict++
	}
	if d.Closed {
		n.Closed++
	}
}

func captureOf(p *corev1.Pod) (captured bool, reason string) {
	if c := member.Condition(p); c != nil {
		return member.Captured(p), oneLine(c.Reason + ": " + c.Message)
	}
	return false, "the agent of its node has not reported it"
}

func podReady(p *corev1.Pod) bool {
	c := conditions.OfPod(p, corev1.PodReady)
	return c != nil && c.Status == corev1.ConditionTrue
}
