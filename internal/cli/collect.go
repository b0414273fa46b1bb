// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// collector gathers the report. What it can't read it names, and goes on with the rest.
type collector struct {
	*cluster
	system string
	report report

	mesh        *v1alpha1.Mesh
	namespaces  map[string]*corev1.Namespace
	pods        []corev1.Pod
	deployments map[types.NamespacedName]*appsv1.Deployment
	services    []corev1.Service
	policies    []v1alpha1.AuthenticationPolicy
	// unread are the kinds that could not be listed: nothing may be concluded from there being none.
	unread map[string]bool
}

// Kinds by the names that sentences have for them.
const (
	whatNamespaces = "namespaces"
	whatPods       = "pods"
	whatNodes      = "nodes"
	whatGateways   = "Gateways"
)

// collect asks everything once; proxies again while they have not settled.
func collect(ctx context.Context, c *cluster, system string) report {
	k := &collector{
		cluster: c, system: system,
		namespaces:  map[string]*corev1.Namespace{},
		deployments: map[types.NamespacedName]*appsv1.Deployment{},
		unread:      map[string]bool{},
		report:      report{Nodes: []nodeReport{}, Waypoints: []waypointReport{}, Proxies: []proxyReport{}},
	}
	k.readMesh(ctx)
	k.readObjects(ctx)
	k.readNodes(ctx)
	k.readWaypoints(ctx)
	k.judgeServices()
	k.readPolicies(ctx)
	k.readProxies(ctx)
	k.readPlaintext(ctx)
	k.report.Healthy = len(k.report.Problems) == 0 && len(k.report.Unknown) == 0
	return k.report
}

func (k *collector) problem(format string, args ...any) {
	k.report.Problems = append(k.report.Problems, fmt.Sprintf(format, args...))
}

func (k *collector) unknown(format string, args ...any) {
	k.report.Unknown = append(k.report.Unknown, fmt.Sprintf(format, args...))
}

// list reads a kind; what is not installed is empty.
func (k *collector) list(ctx context.Context, what string, into client.ObjectList, opts ...client.ListOption) {
	if err := k.client.List(ctx, into, opts...); err != nil && !meta.IsNoMatchError(err) && !apierrors.IsNotFound(err) {
		k.unread[what] = true
		k.unknown("%s can't be listed: %v", what, err)
	}
}

func (k *collector) readMesh(ctx context.Context) {
	m := &v1alpha1.Mesh{}
	err := k.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, m)
	switch {
	case meta.IsNoMatchError(err):
		k.problem("Fairway is not installed in this cluster: the kind Mesh does not exist")
		return
	case apierrors.IsNotFound(err):
		k.problem("there is no Mesh: create one named %q", names.Mesh)
		return
	case err != nil:
		k.report.Mesh.Unknown = true
		k.unknown("the Mesh can't be read: %v", err)
		return
	}
	k.mesh = m
	k.report.Mesh = meshReport{
		Found: true, TrustDomain: m.Spec.TrustDomain, MTLS: string(m.Spec.MTLS.Mode), Outbound: string(m.Spec.Outbound),
		Conditions: conditionsOf(m.Status.Conditions),
	}
	ready := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.MeshConditionReady)
	switch {
	case ready == nil || ready.ObservedGeneration < m.Generation:
		k.problem("the operator has not processed the Mesh yet: is it running?")
	case ready.Status != metav1.ConditionTrue:
		k.problem("the Mesh is not ready: %s: %s", ready.Reason, ready.Message)
	}
	renewed := meta.FindStatusCondition(m.Status.Conditions, v1alpha1.MeshConditionCertificatesRenewed)
	if renewed != nil && renewed.Status == metav1.ConditionFalse {
		k.problem("certificates are not renewed: %s: %s", renewed.Reason, renewed.Message)
	}
}

func conditionsOf(in []metav1.Condition) []condition {
	out := make([]condition, 0, len(in))
	for _, c := range in {
		out = append(out, condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message})
	}
	return out
}

// readObjects reads what several parts of the report need.
func (k *collector) readObjects(ctx context.Context) {
	var namespaces corev1.NamespaceList
	k.list(ctx, whatNamespaces, &namespaces)
	for i := range namespaces.Items {
		k.namespaces[namespaces.Items[i].Name] = &namespaces.Items[i]
	}
	var pods corev1.PodList
	k.list(ctx, whatPods, &pods)
	k.pods = pods.Items
	slices.SortFunc(k.pods, func(a, b corev1.Pod) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	var policies v1alpha1.AuthenticationPolicyList
	k.list(ctx, "AuthenticationPolicies", &policies)
	k.policies = policies.Items
	var deployments appsv1.DeploymentList
	k.list(ctx, "Deployments", &deployments, client.MatchingLabels{names.LabelManagedBy: names.ManagedBy})
	for i := range deployments.Items {
		d := &deployments.Items[i]
		k.deployments[client.ObjectKeyFromObject(d)] = d
	}
	var services corev1.ServiceList
	k.list(ctx, "Services", &services)
	k.services = services.Items
}

func (k *collector) readNodes(ctx context.Context) {
	var nodes corev1.NodeList
	k.list(ctx, whatNodes, &nodes)
	at := map[string]*nodeReport{}
	for i := range nodes.Items {
		n := &nodes.Items[i]
		at[n.Name] = &nodeReport{Name: n.Name, Wanted: k.wantsProxy(n)}
	}
	for i := range k.pods {
		p := &k.pods[i]
		n := at[p.Spec.NodeName]
		if n == nil {
			continue
		}
		if k.isNodeProxy(p) {
			n.Proxy, n.Ready = p.Namespace+"/"+p.Name, podReady(p)
			continue
		}
		if !shouldBeCaptured(p, k.namespaces[p.Namespace]) {
			continue
		}
		if captured, reason := captureOf(p); captured {
			n.Captured++
			k.countModes(p, n)
		} else {
			n.Uncaptured = append(n.Uncaptured, uncaptured{Pod: p.Namespace + "/" + p.Name, Reason: reason})
		}
	}
	for _, n := range at {
		k.report.Nodes = append(k.report.Nodes, *n)
	}
	slices.SortFunc(k.report.Nodes, func(a, b nodeReport) int { return cmp.Compare(a.Name, b.Name) })
	for _, n := range k.report.Nodes {
		k.judgeNode(n)
	}
}

// judgeNode says what is wrong with a node. Without a Mesh there is to be nothing on it, and what the Mesh says, or
// which pods there are, may not have been found out.
func (k *collector) judgeNode(n nodeReport) {
	if k.mesh == nil || k.unread[whatPods] {
		return
	}
	switch {
	case !n.Wanted && len(n.Uncaptured) > 0:
		k.problem("spec.node.nodeSelector of the Mesh excludes node %s, but enrolled pods run on it", n.Name)
	case !n.Wanted:
	case n.Proxy == "":
		k.problem("node %s has no node proxy", n.Name)
	case !n.Ready:
		k.problem("the node proxy of %s (pod %s) is not ready", n.Name, n.Proxy)
	}
	for _, u := range n.Uncaptured {
		k.problem("pod %s on node %s is not captured: %s", u.Pod, n.Name, u.Reason)
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

func (k *collector) readWaypoints(ctx context.Context) {
	var gateways gwv1.GatewayList
	k.list(ctx, whatGateways, &gateways)
	k.report.WaypointsUnknown = k.unread[whatGateways]
	routes := k.readRoutes(ctx)
	for i := range gateways.Items {
		g := &gateways.Items[i]
		if g.Spec.GatewayClassName != names.WaypointClass {
			continue
		}
		key := client.ObjectKeyFromObject(g)
		w := waypointReport{
			Namespace: g.Namespace, Name: g.Name,
			Automatic:  g.Labels[names.LabelAutomatic] != "",
			Programmed: meta.IsStatusConditionTrue(g.Status.Conditions, string(gwv1.GatewayConditionProgrammed)),
			Conditions: conditionsOf(g.Status.Conditions),
		}
		if d := k.deployments[types.NamespacedName{Namespace: g.Namespace, Name: names.WaypointResource(g.Name)}]; d != nil {
			w.Ready, w.Replicas = d.Status.ReadyReplicas, d.Status.Replicas
		}
		for _, r := range routes[key] {
			w.Routes++
			if r.complaint != "" {
				w.Broken = append(w.Broken, r.name+": "+r.complaint)
			}
		}
		delete(routes, key)
		slices.Sort(w.Broken)
		k.report.Waypoints = append(k.report.Waypoints, w)
		if !w.Programmed {
			k.problem("waypoint %s is not programmed: %s", key, whyNotProgrammed(g))
		}
	} // What is left belongs to no waypoint that there is.
	for _, rest := range routes {
		for _, r := range rest {
			if r.complaint != "" {
				k.report.Elsewhere = append(k.report.Elsewhere, r.name+": "+r.complaint)
			}
		}
	}
	slices.Sort(k.report.Elsewhere)
	k.report.Elsewhere = slices.Compact(k.report.Elsewhere)
}

// whyNotProgrammed prefers what is wrong with the Gateway to what follows from it.
func whyNotProgrammed(g *gwv1.Gateway) string {
	for _, kind := range []gwv1.GatewayConditionType{gwv1.GatewayConditionAccepted, gwv1.GatewayConditionProgrammed} {
		if c := meta.FindStatusCondition(g.Status.Conditions, string(kind)); c != nil && c.Status == metav1.ConditionFalse {
			return c.Reason + ": " + c.Message
		}
	}
	return "the operator has not processed it yet"
}
