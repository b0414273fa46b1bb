// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// +kubebuilder:rbac:groups=fairway.dev,resources=authenticationpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairway.dev,resources=authenticationpolicies/status,verbs=update

// AuthenticationPolicy says how callers prove who they are. With mtls, it says of pods of its namespace whether they
// take plain text, at which ports; the node proxy of each pod carries it out. Else it is about those that send requests
// to Services of its namespace, or to ports of them. That is carried out by the Service's waypoint, which it brings if
// there is none, and nobody gets past that: at the ports of the pods nobody else is let in. One such policy is in force
// for a port: one that names the port goes before one of the whole Service, and of two that name the same the older one
// has it. Where pods are behind several Services, the policies of all of them hold. A policy that can't be carried out
// refuses all requests.
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
// +kubebuilder:validation:XValidation:rule="has(self.mtls) != (has(self.jwt) || has(self.externalAuthorization))",message="say how callers are to prove who they are: set jwt, externalAuthorization or both, or else mtls alone"
// +kubebuilder:validation:XValidation:rule="has(self.mtls) || self.targetRefs.all(t, t.kind == 'Service')",message="jwt and externalAuthorization target Services: requests are seen by their waypoints"
// +kubebuilder:validation:XValidation:rule="!has(self.mtls) || self.targetRefs.all(t, t.kind in ['Pod', 'Namespace'])",message="mtls targets Pod (by selector) or Namespace: the node proxy of each pod carries it out"
type AuthenticationPolicySpec struct {
	// With mtls, pods by selector, or the namespace; else Services of the policy's namespace, or ports of them
	// (sectionName).
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.kind in ['Service', 'Pod', 'Namespace'] && size(t.group) == 0)",message="an AuthenticationPolicy targets Service, Pod (by selector) or Namespace: group must be empty"
	TargetRefs []AuthenticationTarget `json:"targetRefs"`

	// JSON Web Tokens that requests carry.
	// +optional
	JWT *JWTAuthentication `json:"jwt,omitempty"`

	// A service that is asked about each request, when its token is good.
	// +optional
	ExternalAuthorization *ExternalAuthorization `json:"externalAuthorization,omitempty"`

	// Whether pods take plain text beside mutual TLS.
	// +optional
	MTLS *MTLSAuthentication `json:"mtls,omitempty"`
}

// AuthenticationTarget names a Service in the policy's namespace, or pods by their labels.
//
// +kubebuilder:validation:XValidation:rule="has(self.selector) == (self.kind == 'Pod')",message="kind Pod needs a selector (selector: {} selects all pods of the namespace), and no other kind has one"
// +kubebuilder:validation:XValidation:rule="has(self.name) == (self.kind == 'Service')",message="name the Service; kinds Pod and Namespace have no name: they are the policy's own namespace"
// +kubebuilder:validation:XValidation:rule="!has(self.sectionName) || self.kind == 'Service'",message="only a Service has sections"
type AuthenticationTarget struct {
	// API group of the target: empty.
	// +optional
	// +kubebuilder:default=""
	Group gwv1.Group `json:"group"`

	// Kind of the target.
	// +required
	Kind gwv1.Kind `json:"kind"`

	// Name of the Service.
	// +optional
	Name gwv1.ObjectName `json:"name,omitempty"`

	// Name of a port of the Service.
	// +optional
	SectionName *gwv1.SectionName `json:"sectionName,omitempty"`

	// Labels of the pods, with kind Pod. The empty selector selects all pods of the namespace.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// Targets are what the policy names by name: pods have labels only.
func (p *AuthenticationPolicy) Targets() (out []gwv1.LocalPolicyTargetReferenceWithSectionName) {
	for _, t := range p.Spec.TargetRefs {
		if t.Kind != targetPod && t.Kind != targetNamespace {
			out = append(out, gwv1.LocalPolicyTargetReferenceWithSectionName{
				LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: t.Group, Kind: t.Kind, Name: t.Name},
				SectionName:                t.SectionName,
			})
		}
	}
	return out
}

// Ancestors are the entries of its status.
func (p *AuthenticationPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }
