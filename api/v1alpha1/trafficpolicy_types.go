// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// +kubebuilder:rbac:groups=fairway.dev,resources=trafficpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairway.dev,resources=trafficpolicies/status,verbs=update

// TrafficPolicy bounds what waypoints send to Services, or to ports of them.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=trafficpolicies,singular=trafficpolicy,categories=fairway
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
type TrafficPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What is bounded, and for what.
	Spec TrafficPolicySpec `json:"spec"`
	// Where the policy is in force.
	// +optional
	Status gwv1.PolicyStatus `json:"status,omitempty"`
}

func init() { register(&TrafficPolicy{}, &TrafficPolicyList{}) }

// TrafficPolicyList is a list of TrafficPolicy.
//
// +kubebuilder:object:root=true
type TrafficPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []TrafficPolicy `json:"items"`
}

// TrafficPolicySpec is what a TrafficPolicy asks for.
type TrafficPolicySpec struct {
	// Services of the policy's namespace, or ports of them (sectionName).
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`

	// How many connections each proxy of a waypoint may have to the endpoints of a port.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	MaxConnections int32 `json:"maxConnections"`
}

// Targets are what the policy names.
func (p *TrafficPolicy) Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName {
	return p.Spec.TargetRefs
}

// Ancestors are the entries of its status.
func (p *TrafficPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }
