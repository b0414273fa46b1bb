// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	"fmt"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
)

// Kinds of targets without a name.
const (
	targetPod       = "Pod"
	targetNamespace = "Namespace"
)

// MTLSAuthentication says whether pods take plain text. A policy for pods by selector goes before one for the
// namespace, and both before labels "fairway.dev/mtls-mode" and the Mesh; what a policy says of a port goes before what
// it says of all. Where several policies for the same pods differ, Strict holds.
//
// +kubebuilder:validation:XValidation:rule="has(self.mode) || has(self.ports)",message="set mode, ports or both"
type MTLSAuthentication struct {
	// Strict refuses plain text, kubelet's probes excepted; Permissive takes it. Without it, ports that aren't listed are
	// for others to decide: other policies, labels, the Mesh.
	// +optional
	Mode MTLSMode `json:"mode,omitempty"`

	// Ports of the pods, by number, that have a mode of their own.
	// +optional
	// +listType=map
	// +listMapKey=port
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Ports []MTLSPort `json:"ports,omitempty"`
}

// MTLSPort is the mode of a port.
type MTLSPort struct {
	// Number of the pods' port (not of a Service's).
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	Port int32 `json:"port"`

	// Whether plain text is refused at the port.
	// +required
	Mode MTLSMode `json:"mode"`
}

// OfNamespace tells whether a policy is for all pods of its namespace.
func (p *AuthenticationPolicy) OfNamespace() bool {
	for _, t := range p.Spec.TargetRefs {
		if t.Kind == targetNamespace {
			return true
		}
	}
	return false
}

// OfPods are the labels of the pods that a policy is for, one selector for each target; an error if one can't be
// understood.
func (p *AuthenticationPolicy) OfPods() (out []labels.Selector, err error) {
	for _, t := range p.Spec.TargetRefs {
		if t.Kind != targetPod {
			continue
		}
		s, err := metav1.LabelSelectorAsSelector(t.Selector)
		if err != nil {
			return nil, fmt.Errorf("selector: %w", err)
		}
		out = append(out, s)
	}
	return out, nil
}
