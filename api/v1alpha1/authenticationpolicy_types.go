// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// +kubebuilder:rbac:groups=fairway.dev,resources=authenticationpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairway.dev,resources=authenticationpolicies/status,verbs=update

// AuthenticationPolicy says how those prove who they are that send requests to Services of its namespace, or to ports
// of them. It is carried out by the Service's waypoint, which it brings if there is none, and nobody gets past that: at
// the ports of the pods nobody else is let in. One policy is in force for a port: one that names the port goes before
// one of the whole Service, and of two that name the same the older one has it. Where pods are behind several Services,
// the policies of all of them hold. A policy that can't be carried out refuses all requests.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=authenticationpolicies,singular=authenticationpolicy,shortName=authn,categories=fairway
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Enforced",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Enforced")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AuthenticationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What the policy is for, and what it asks for.
	// +required
	Spec AuthenticationPolicySpec `json:"spec"`
	// Where the policy is in force.
	// +optional
	Status gwv1.PolicyStatus `json:"status,omitempty"`
}

func init() { register(&AuthenticationPolicy{}, &AuthenticationPolicyList{}) }

// AuthenticationPolicyList is a list of AuthenticationPolicy.
//
// +kubebuilder:object:root=true
type AuthenticationPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AuthenticationPolicy `json:"items"`
}

// AuthenticationPolicySpec is what an AuthenticationPolicy asks for.
//
// +kubebuilder:validation:XValidation:rule="has(self.jwt) || has(self.externalAuthorization)",message="say how callers are to prove who they are: set jwt, externalAuthorization or both"
type AuthenticationPolicySpec struct {
	// Services of the policy's namespace, or ports of them (sectionName).
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.kind == 'Service' && size(t.group) == 0)",message="an AuthenticationPolicy targets Services: group must be empty, and kind Service"
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`

	// JSON Web Tokens that requests carry.
	// +optional
	JWT *JWTAuthentication `json:"jwt,omitempty"`

	// A service that is asked about each request, when its token is good.
	// +optional
	ExternalAuthorization *ExternalAuthorization `json:"externalAuthorization,omitempty"`
}

// Targets are what the policy names.
func (p *AuthenticationPolicy) Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName {
	return p.Spec.TargetRefs
}

// Ancestors are the entries of its status.
func (p *AuthenticationPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }
