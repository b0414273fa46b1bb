// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"fmt"
	"slices"
	"strings"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/gatewayapi"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// maxNamed is how many nodes or pods a message names.
const maxNamed = 5

// meshObserved is what the status of a Mesh is made from.
type meshObserved struct {
	network    *v1alpha1.NetworkStatus
	daemonSet  *appsv1.DaemonSet
	applyError error
	pods       []corev1.Pod
	reports    []NodeReport
	refused    []ingest.RefusedClaim
	gatewayAPI bool
}

// meshStatus sums up what was observed (pure).
func meshStatus(mesh *v1alpha1.Mesh, o meshObserved, certificates CertificatesStatus) v1alpha1.MeshStatus {
	c := conditions.For(mesh.Generation, mesh.Status.Conditions)
	accepted := "The settings are valid."
	if mesh.Spec.Paused {
		accepted += " The Mesh is paused: no proxy is replaced."
	}
	c.True(v1alpha1.MeshConditionAccepted, v1alpha1.MeshReasonAccepted, accepted)
	setNetwork(c, mesh.Spec.Network, o.network)
	setCertificates(c, certificates)
	setRenewal(c, certificates.Renewal)
	nodes := nodesStatus(o)
	setNodes(c, nodes, o)
	setAddresses(c, o.refused)
	if o.gatewayAPI {
		c.True(v1alpha1.MeshConditionGatewayAPIReady, v1alpha1.MeshReasonInstalled, "The Gateway API is installed.")
	} else {
		c.False(v1alpha1.MeshConditionGatewayAPIReady, v1alpha1.MeshReasonGatewayAPIMissing,
			"The CRDs of the Gateway API (v1) are not installed, so there are no routes and no waypoints; mTLS works without "+
				"them. Install them (for example: kubectl apply --server-side -f "+
				"https://github.com/kubernetes-sigs/gateway-api/releases/download/"+gatewayapi.Built+"/standard-install.yaml).")
	}
	setReady(c, nodes, certificates.Renewal.Lost)
	setMeshProgress(c, o.pods)
	return v1alpha1.MeshStatus{
		ObservedGeneration: mesh.Generation, Conditions: c.List(), Network: o.network, Nodes: nodes,
	}
}

func setNetwork(c *conditions.Set, spec *v1alpha1.Network, n *v1alpha1.NetworkStatus) {
	configured := spec != nil && (len(spec.PodCIDRs) > 0 || len(spec.ServiceCIDRs) > 0)
	kind := v1alpha1.MeshConditionNetworkReady
	switch {
	case len(n.PodCIDRs) == 0:
		c.False(kind, v1alpha1.MeshReasonNoPodCIDRs,
			"No Node has spec.podCIDRs, so the address ranges of pods are unknown: set spec.network.podCIDRs of the Mesh to "+
				"the ranges of your CNI.")
	case len(n.ServiceCIDRs) == 0:
		c.False(kind, v1alpha1.MeshReasonNoServiceCIDRs,
			"The cluster has no ServiceCIDR objects, so the address ranges of Services are unknown: set "+
				"spec.network.serviceCIDRs of the Mesh to the API server's --service-cluster-ip-range.")
	case configured:
		c.True(kind, v1alpha1.MeshReasonConfigured, "The ranges to capture are those of spec.network.")
	default:
		c.True(kind, v1alpha1.MeshReasonFound, "The ranges to capture were found in the cluster.")
	}
}

func setCertificates(c *conditions.Set, s CertificatesStatus) {
	reason := s.Reason
	if reason == "" {
		reason = v1alpha1.MeshReasonPending
		if s.Ready {
			reason = v1alpha1.MeshReasonIssued
		}
	}
	c.Set(v1alpha1.MeshConditionCertificatesReady, conditions.Is(s.Ready), reason, s.Message)
}

func setRenewal(c *conditions.Set, r RenewalStatus) {
	kind := v1alpha1.MeshConditionCertificatesRenewed
	if r.Reason == "" {
		c.True(kind, v1alpha1.MeshReasonRenewed, "Nothing that was issued fails to be renewed.")
		return
	}
	c.False(kind, r.Reason, r.Message)
}

func nodesStatus(o meshObserved) *v1alpha1.NodesStatus {
	n := &v1alpha1.NodesStatus{}
	if ds := o.daemonSet; ds != nil && ds.Status.ObservedGeneration == ds.Generation {
		n.Desired, n.Ready = ds.Status.DesiredNumberScheduled, ds.Status.NumberReady
	}
	for _, r := range o.reports {
		n.CapturedPods += int32(r.Captured) //nolint:gosec // kubelets stop at a few hundred pods
	}
	n.Summary = fmt.Sprintf("%d/%d", n.Ready, n.Desired)
	return n
}

func setNodes(c *conditions.Set, n *v1alpha1.NodesStatus, o meshObserved) {
	kind := v1alpha1.MeshConditionNodesReady
	problems := captureProblems(o.reports)
	switch ds := o.daemonSet; {
	case o.applyError != nil:
		c.False(kind, v1alpha1.MeshReasonInvalid, fmt.Sprintf("The node proxies can't be deployed: %v.", o.applyError))
	case ds == nil:
		c.False(kind, v1alpha1.MeshReasonPending, "The node proxies are not deployed yet: see condition CertificatesReady.")
	case ds.Status.ObservedGeneration != ds.Generation:
		c.False(kind, v1alpha1.MeshReasonPending, "The node proxies are being deployed.")
	case n.Desired == 0:
		c.False(kind, v1alpha1.MeshReasonNoNodes,
			"No node matches spec.node.nodeSelector and spec.node.tolerations of the Mesh, so no node proxy runs.")
	case n.Ready < n.Desired:
		c.False(kind, v1alpha1.MeshReasonNodesNotReady, fmt.Sprintf("%d of %d node proxies are ready%s.", n.Ready, n.Desired,
			troubles(o.pods)))
	case len(withoutPlugin(o.pods)) > 0:
		c.False(kind, v1alpha1.MeshReasonPluginMissing, "New pods start uncaptured on some nodes: "+
			enumerate(withoutPlugin(o.pods))+".")
	case len(problems) > 0:
		c.False(kind, v1alpha1.MeshReasonCaptureFailed, "Some pods are not captured: "+enumerate(problems)+".")
	default:
		c.True(kind, v1alpha1.MeshReasonReady, fmt.Sprintf("All %d node proxies are ready.", n.Desired))
	}
}

func setAddresses(c *conditions.Set, refused []ingest.RefusedClaim) {
	kind := v1alpha1.MeshConditionAddressesReady
	if len(refused) == 0 {
		c.True(kind, v1alpha1.MeshReasonUnambiguous, "No pod claims an address that it can't have.")
		return
	}
	texts := make([]string, len(refused))
	for i, r := range refused {
		texts[i] = claimText(r)
	}
	c.False(kind, v1alpha1.MeshReasonAddressConflict,
		"The mesh ignores some addresses that nodes report for their pods: "+enumerate(texts)+".")
}

func claimText(r ingest.RefusedClaim) string {
	return fmt.Sprintf("pod %s on node %s claims %s, but %s", r.Pod, r.Node, r.Address, r.Why)
}

// withoutPlugin names the nodes whose agent can't install the CNI plugin, and why.
func withoutPlugin(pods []corev1.Pod) []string {
	var out []string
	for i := range pods {
		if why := pluginTrouble(&pods[i]); why != "" {
			out = append(out, fmt.Sprintf("%s (%s)", nodeOf(&pods[i]), why))
		}
	}
	slices.Sort(out)
	return out
}

func pluginTrouble(pod *corev1.Pod) string {
	c := conditions.OfPod(pod, v1alpha1.PodConditionPluginInstalled)
	if c == nil || c.Status != corev1.ConditionFalse || pod.DeletionTimestamp != nil {
		return ""
	}
	return strings.TrimSuffix(c.Message, ".")
}

func captureProblems(reports []NodeReport) []string {
	var out []string
	for _, r := range reports {
		for _, p := range r.Problems {
			out = append(out, p+" on node "+r.Node)
		}
	}
	slices.Sort(out)
	return out
}

// setReady sums up: the first thing that is missing is the reason. A renewal that fails is missing once certificates
// have run out.
func setReady(c *conditions.Set, n *v1alpha1.NodesStatus, lost bool) {
	for _, kind := range []string{
		v1alpha1.MeshConditionAccepted, v1alpha1.MeshConditionNetworkReady, v1alpha1.MeshConditionCertificatesReady,
		v1alpha1.MeshConditionCertificatesRenewed,
		v1alpha1.MeshConditionNodesReady, v1alpha1.MeshConditionAddressesReady, v1alpha1.MeshConditionGatewayAPIReady,
	} {
		if kind == v1alpha1.MeshConditionCertificatesRenewed && !lost {
			continue
		}
		if missing := c.Get(kind); missing != nil && missing.Status != metav1.ConditionTrue {
			c.False(v1alpha1.MeshConditionReady, missing.Reason, kind+": "+missing.Message)
			return
		}
	}
	c.True(v1alpha1.MeshConditionReady, v1alpha1.MeshReasonReady, fmt.Sprintf("The mesh is up on %d nodes.", n.Desired))
}

// meshNeedsSomebody are the reasons of a Mesh's conditions that don't pass by themselves.
func meshNeedsSomebody() []string {
	return []string{
		v1alpha1.MeshReasonNoPodCIDRs, v1alpha1.MeshReasonNoServiceCIDRs, v1alpha1.MeshReasonIssuerNotReady,
		v1alpha1.MeshReasonCertManagerMissing, v1alpha1.MeshReasonCAInvalid, v1alpha1.MeshReasonCaptureFailed,
		v1alpha1.MeshReasonTrustBundleInvalid, v1alpha1.MeshReasonIssuerDenied, v1alpha1.MeshReasonIssuerFailed,
		v1alpha1.MeshReasonIssuerUnavailable, v1alpha1.MeshReasonCertificateRefused, v1alpha1.MeshReasonRenewalFailing,
		v1alpha1.MeshReasonSPIRENotReady, v1alpha1.MeshReasonPluginMissing, v1alpha1.MeshReasonAddressConflict,
		v1alpha1.MeshReasonInvalid, v1alpha1.MeshReasonGatewayAPIMissing,
	}
}

// setMeshProgress says for what knows nothing of the kind whether a Mesh that isn't ready will be by itself.
func setMeshProgress(c *conditions.Set, nodes []corev1.Pod) {
	ready := c.Get(v1alpha1.MeshConditionReady)
	stuck := slices.Contains(meshNeedsSomebody(), ready.Reason) || ready.Reason == v1alpha1.MeshReasonNoNodes ||
		ready.Reason == v1alpha1.MeshReasonNodesNotReady && anyStuck(nodes)
	setProgress(c, *ready, stuck)
}

// troubles names the nodes whose proxy is not ready, and why.
func troubles(pods []corev1.Pod) string {
	var out []string
	for i := range pods {
		if t := podTrouble(&pods[i]); t.Why != "" {
			out = append(out, fmt.Sprintf("%s (%s)", nodeOf(&pods[i]), t.Why))
		}
	}
	if len(out) == 0 {
		return ""
	}
	slices.Sort(out)
	return "; not ready: " + enumerate(out)
}

func nodeOf(pod *corev1.Pod) string {
	if pod.Spec.NodeName == "" {
		return "pod " + pod.Name
	}
	return pod.Spec.NodeName
}

func enumerate(items []string) string {
	if len(items) <= maxNamed {
		return strings.Join(items, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(items[:maxNamed], ", "), len(items)-maxNamed)
}
