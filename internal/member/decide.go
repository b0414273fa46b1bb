// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Action is what should become of a pod.
type Action int

// Actions.
const (
	// Release: the pod must not be captured.
	Release Action = iota
	// Capture: the pod must be captured.
	Capture
	// Hold: the pod stays as it is, captured or not.
	Hold
)

const (
	messageMeshAbsent      = "there is no Mesh, or it is being deleted"
	messageSystemNamespace = "pods of namespace %s run the mesh itself"
	messageTerminating     = "the pod is terminating"
	messageNetworkUnknown  = "the address ranges of pods and Services are not all known yet: " +
		"see condition NetworkReady of: kubectl describe mesh " + names.Mesh
	messageReservedPort = "container %s declares port %d, which the node proxy needs in the pod's network namespace: " +
		"use another port"
	messageCaptured       = "Traffic passes the node proxy with mutual TLS; "
	messageClosed         = "Outbound is closed: what the pod sends to outside of the mesh's ranges is refused."
	messageClosedResolver = "The pod has the node's resolvers (dnsPolicy Default), and can ask them only if they are " +
		"the cluster's, too: use dnsPolicy ClusterFirst."
)

const (
	problemModeLabel = "Label " + names.LabelMTLSMode + " of %s has the unknown value %q, so mode " + names.MTLSStrict +
		" applies: set " + names.MTLSStrict + " or " + names.MTLSPermissive + "."
	problemOutboundLabel = "Label " + names.LabelOutbound + " of %s has the unknown value %q, so outbound is closed: " +
		"set " + names.OutboundAllow + " or " + names.OutboundDeny + "."
	problemMeshLabel = "Label " + names.LabelMesh + " of the pod has the unknown value %q, which has no effect: only " +
		names.MeshDisabled + " takes a pod out of the mesh."
)

// Decision about a pod.
type Decision struct {
	Action  Action
	Reason  string
	Message string
	// Strict refuses plaintext, but at ports in Except; where it is false, plaintext is refused at those. Sorted.
	Strict bool
	Except []uint16
	// Closed keeps the pod from addresses outside of the mesh's ranges.
	Closed bool
	// Problem is what a person should mend, in a sentence; empty if there is nothing. It is part of Message.
	Problem string
}

// Decide says what should become of a pod. namespace and mesh are nil where there is none; policies are those of the
// pod's namespace.
func Decide(
	pod *corev1.Pod, namespace *corev1.Namespace, mesh *v1alpha1.Mesh, systemNamespace string,
	policies ...v1alpha1.AuthenticationPolicy,
) Decision {
	switch {
	case mesh == nil || !mesh.DeletionTimestamp.IsZero():
		return release(v1alpha1.PodReasonMeshAbsent, messageMeshAbsent)
	case pod.Namespace == systemNamespace:
		return release(v1alpha1.PodReasonSystemNamespace, fmt.Sprintf(messageSystemNamespace, systemNamespace))
	}
	switch why := whyNot(pod, namespace); why {
	case "":
	case v1alpha1.PodReasonNamespaceUnknown:
		return Decision{Action: Hold, Reason: why, Message: messageOf(why, pod)}
	default:
		return release(why, messageOf(why, pod))
	}
	if container, port := reservedPort(pod); port != 0 {
		return release(v1alpha1.PodReasonReservedPort, fmt.Sprintf(messageReservedPort, container, port))
	}
	d := captured(pod, namespace, mesh, policies)
	switch {
	case !pod.DeletionTimestamp.IsZero():
		// It may still serve for its whole grace period.
		d.Action, d.Reason, d.Message = Hold, v1alpha1.PodReasonTerminating, messageTerminating
	case !networkKnown(mesh):
		d.Action, d.Reason, d.Message = Hold, v1alpha1.PodReasonNetworkUnknown, messageNetworkUnknown
	}
	return d
}

// captured is how a pod is to be captured.
func captured(
	pod *corev1.Pod, namespace *corev1.Namespace, mesh *v1alpha1.Mesh, policies []v1alpha1.AuthenticationPolicy,
) Decision {
	d := Decision{Action: Capture, Reason: v1alpha1.PodReasonCaptured}
	var ofMode, ofOutbound, ofMesh string
	d.Strict, d.Except, ofMode = modes(pod, namespace, mesh, policies)
	d.Message = messageCaptured + d.mode()
	if d.Closed, ofOutbound = closed(pod, namespace, mesh); d.Closed {
		d.Message = sentences(d.Message, messageClosed)
		if pod.Spec.DNSPolicy == corev1.DNSDefault {
			d.Message = sentences(d.Message, messageClosedResolver)
		}
	}
	if v := pod.Labels[names.LabelMesh]; v != "" && v != names.MeshEnabled {
		ofMesh = fmt.Sprintf(problemMeshLabel, v)
	}
	d.Problem = sentences(ofMode, ofOutbound, ofMesh)
	d.Message = sentences(d.Message, d.Problem) + uncaptured(pod, mesh)
	return d
}

// sentences puts together those that there are.
func sentences(in ...string) string {
	return strings.Join(slices.DeleteFunc(in, func(s string) bool { return s == "" }), " ")
}

// uncaptured says of which of the pod's addresses senders know nothing, as those of the second IP family. A pod that
// has no others isn't captured.
func uncaptured(pod *corev1.Pod, mesh *v1alpha1.Mesh) string {
	var in, out []string
	pods, _ := Networks(mesh)
	for _, ip := range pod.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err == nil && slices.ContainsFunc(pods, func(p netip.Prefix) bool { return p.Contains(addr.Unmap()) }) {
			in = append(in, ip.IP)
		} else {
			out = append(out, ip.IP)
		}
	}
	if len(in) == 0 || len(out) == 0 {
		return ""
	}
	return fmt.Sprintf(" Traffic to %s is sent in plaintext, because the address is outside the mesh's pod ranges: "+
		"add its range to spec.network.podCIDRs of the Mesh.", strings.Join(out, ", "))
}

func release(reason, message string) Decision {
	return Decision{Action: Release, Reason: reason, Message: message}
}

// messageOf says to people why a pod is no member, and what they can do.
func messageOf(why string, pod *corev1.Pod) string {
	switch why {
	case v1alpha1.PodReasonHostNetwork:
		return "the pod uses the host network, where its traffic can't be told apart from the node's"
	case v1alpha1.PodReasonFinished:
		return "the pod has finished"
	case v1alpha1.PodReasonNamespaceUnknown:
		return "namespace " + pod.Namespace + " is not known to the agent yet"
	case v1alpha1.PodReasonNotEnrolled:
		return "label namespace " + pod.Namespace + " with " + names.LabelMesh + "=" + names.MeshEnabled +
			" to bring its pods into the mesh"
	case v1alpha1.PodReasonProxy:
		return "proxies of the mesh speak mTLS themselves"
	case v1alpha1.PodReasonOptedOut:
		return "the pod has label " + names.LabelMesh + "=" + names.MeshDisabled
	case v1alpha1.PodReasonNoServiceAccount:
		return "the pod has no service account (static pods have none), so it has no identity, " +
			"and Services in the mesh don't lead to it"
	}
	return why
}

// reservedPort is the first port of the proxy's own that a container declares: captured, the container could not listen
// there.
func reservedPort(pod *corev1.Pod) (container string, port int32) {
	for _, c := range slices.Concat(pod.Spec.InitContainers, pod.Spec.Containers) {
		for _, p := range c.Ports {
			tcp := cmp.Or(p.Protocol, corev1.ProtocolTCP) == corev1.ProtocolTCP
			if tcp && slices.Contains([]int32{names.PortOutbound, names.PortInbound, names.PortMTLS}, p.ContainerPort) {
				return c.Name, p.ContainerPort
			}
		}
	}
	return "", 0
}

// networkKnown tells whether there is what to capture. With half of it, pods would say that they are captured while
// what they send to Services, or to each other, leaves in plaintext.
func networkKnown(mesh *v1alpha1.Mesh) bool {
	pods, services := Networks(mesh)
	return len(pods) > 0 && len(services) > 0
}

// strict is the pod's mode: its own label before the namespace's before the Mesh. Whoever sets the label wants to say
// something about who may come in, so a value that can't be understood means the mode that lets fewer in, and a
// problem.
func strict(pod *corev1.Pod, namespace *corev1.Namespace, mesh *v1alpha1.Mesh) (strict bool, problem string) {
	switch v, on := labelOf(names.LabelMTLSMode, pod, namespace); {
	case v == "":
		return mesh.Spec.MTLS.Mode == v1alpha1.MTLSModeStrict, ""
	case strings.EqualFold(v, names.MTLSStrict):
		return true, ""
	case strings.EqualFold(v, names.MTLSPermissive):
		return false, ""
	default:
		return true, fmt.Sprintf(problemModeLabel, on, v)
	}
}

// closed tells, in the same way, whether the pod is kept from addresses outside of the mesh's ranges.
func closed(pod *corev1.Pod, namespace *corev1.Namespace, mesh *v1alpha1.Mesh) (closed bool, problem string) {
	switch v, on := labelOf(names.LabelOutbound, pod, namespace); {
	case v == "":
		return mesh.Spec.Outbound == v1alpha1.OutboundDeny, ""
	case strings.EqualFold(v, names.OutboundDeny):
		return true, ""
	case strings.EqualFold(v, names.OutboundAllow):
		return false, ""
	default:
		return true, fmt.Sprintf(problemOutboundLabel, on, v)
	}
}

// labelOf is the value of a label that a pod or else its namespace has, and which of them, in words.
func labelOf(label string, pod *corev1.Pod, namespace *corev1.Namespace) (value, on string) {
	if v := pod.Labels[label]; v != "" {
		return v, "the pod"
	}
	return namespace.Labels[label], "namespace " + namespace.Name
}

// Networks are the ranges of pods and of Services that the operator found out, which are captured. What can't be parsed
// is the operator's to report.
func Networks(mesh *v1alpha1.Mesh) (pods, services []netip.Prefix) {
	if mesh.Status.Network == nil {
		return nil, nil
	}
	parse := func(in []string) (out []netip.Prefix) {
		for _, s := range in {
			if p, err := netip.ParsePrefix(s); err == nil {
				out = append(out, p.Masked())
			}
		}
		return out
	}
	return parse(mesh.Status.Network.PodCIDRs), parse(mesh.Status.Network.ServiceCIDRs)
}
