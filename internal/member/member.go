// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package member is the one place that says who is a member of the mesh: which namespaces are enrolled, which of their
// pods belong to the mesh and why others don't, who a pod is, and which waypoint a Service asks for. Operator, agent
// and command line ask it, so that two of them can never disagree about a pod. It is pure: it looks at objects,
// wherever they come from.
package member

import (
	"cmp"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Enrolled tells whether a namespace is in the mesh; nil is in none.
func Enrolled(namespace *corev1.Namespace) bool {
	return namespace != nil && namespace.Labels[names.LabelMesh] == names.MeshEnabled
}

// EnrolledLabels select the enrolled namespaces.
func EnrolledLabels() map[string]string { return map[string]string{names.LabelMesh: names.MeshEnabled} }

// whyNot says why a pod is no member of the mesh, given its namespace (nil: it isn't known); empty if it is one.
// Whether there is a mesh at all, and what else keeps a member from being captured, is for Decide to say.
func whyNot(pod *corev1.Pod, namespace *corev1.Namespace) string {
	switch {
	case pod.Spec.HostNetwork:
		return v1alpha1.PodReasonHostNetwork
	case Finished(pod):
		return v1alpha1.PodReasonFinished
	case namespace == nil:
		return v1alpha1.PodReasonNamespaceUnknown
	case !Enrolled(namespace):
		return v1alpha1.PodReasonNotEnrolled
	case Waypoint(pod):
		return v1alpha1.PodReasonProxy
	case pod.Labels[names.LabelMesh] == names.MeshDisabled:
		return v1alpha1.PodReasonOptedOut
	case Account(pod) == "":
		return v1alpha1.PodReasonNoServiceAccount
	}
	return ""
}

// Is tells whether a pod is a member of the mesh, given its namespace.
func Is(pod *corev1.Pod, namespace *corev1.Namespace) bool { return whyNot(pod, namespace) == "" }

// Waypoint tells whether a pod is a waypoint's. Nothing captures it: it speaks mutual TLS itself.
func Waypoint(pod *corev1.Pod) bool {
	return pod.Labels[names.LabelComponent] == names.ComponentWaypoint && pod.Labels[names.LabelGatewayName] != ""
}

// Finished tells whether a pod has come to its end: nothing runs in it any more, and its address may be another's.
func Finished(pod *corev1.Pod) bool {
	return pod.Status.Phase == corev1.PodSucceeded || pod.Status.Phase == corev1.PodFailed
}

// Account is the service account whose identity a pod has; empty: it has none. The API server gives every pod an
// account but mirrors of static pods, and those say nothing but what their node says, so they are nobody: neither is
// "default", nor what the name of an account in one would be.
func Account(pod *corev1.Pod) string {
	if _, mirror := pod.Annotations[names.AnnotationMirror]; mirror {
		return ""
	}
	return pod.Spec.ServiceAccountName
}

// Identity is a pod's SPIFFE ID; empty: it has none, and nobody can answer for it.
func Identity(trustDomain string, pod *corev1.Pod) string {
	account := Account(pod)
	if account == "" {
		return ""
	}
	return names.SPIFFEID(trustDomain, pod.Namespace, account)
}

// TrustDomain is that of a Mesh, or of one that doesn't say (nil: there is none).
func TrustDomain(mesh *v1alpha1.Mesh) string {
	if mesh == nil {
		return names.DefaultTrustDomain
	}
	return cmp.Or(mesh.Spec.TrustDomain, names.DefaultTrustDomain)
}

// Condition is what the agent of a pod's node has said of its capture (v1alpha1.PodConditionCaptured); nil: nothing.
func Condition(pod *corev1.Pod) *corev1.PodCondition {
	return conditions.OfPod(pod, v1alpha1.PodConditionCaptured)
}

// Captured tells whether senders take a pod for captured.
func Captured(pod *corev1.Pod) bool {
	c := Condition(pod)
	return c != nil && c.Status == corev1.ConditionTrue
}
