// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// +kubebuilder:rbac:groups=fairway.dev,resources=trafficpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairway.dev,resources=trafficpolicies/status,verbs=update

// TrafficPolicy says how waypoints treat what they send to Services of its namespace, or to ports of them. One policy
// is in force for a port: one that names the port goes before one of the whole Service, and of two that name the same
// the older one has it. What a policy doesn't set is as without a policy.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=trafficpolicies,singular=trafficpolicy,categories=fairway
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type TrafficPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What the policy is for, and what it asks for.
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
	// +kubebuilder:validation:XValidation:rule="self.all(t, t.kind == 'Service' && size(t.group) == 0)",message="a TrafficPolicy targets Services: kind must be Service, and group empty"
	TargetRefs []gwv1.LocalPolicyTargetReferenceWithSectionName `json:"targetRefs"`

	// How a waypoint chooses among the endpoints. Default: LeastRequest. The Service's own sessionAffinity has no effect
	// at waypoints where this is set.
	// +optional
	LoadBalancing *LoadBalancing `json:"loadBalancing,omitempty"`

	// How much each proxy of a waypoint may have under way to all endpoints of a port together. What is beyond is
	// answered 503; a connection to a port that isn't HTTP ends.
	// +optional
	CircuitBreaking *CircuitBreaking `json:"circuitBreaking,omitempty"`

	// Which endpoints a proxy leaves out for a while, for what they answered to that proxy.
	// +optional
	OutlierDetection *OutlierDetection `json:"outlierDetection,omitempty"`

	// How connections to the endpoints are made and kept.
	// +optional
	Connection *Connection `json:"connection,omitempty"`

	// How many requests to the port are passed on. What is beyond is answered 429 with Retry-After (gRPC:
	// RESOURCE_EXHAUSTED). This, and all below, applies to ports that are HTTP.
	// +optional
	RateLimit *RateLimit `json:"rateLimit,omitempty"`

	// What callers are made to suffer, to see whether they bear it.
	// +optional
	Faults *Faults `json:"faults,omitempty"`

	// What a waypoint holds until it is there in full. Unless set, everything is passed on as it comes.
	// +optional
	Buffering *Buffering `json:"buffering,omitempty"`

	// Compression of answers for clients that accept it. Unless set, answers stay as they are.
	// +optional
	Compression *Compression `json:"compression,omitempty"`
}

// Targets are what the policy names.
func (p *TrafficPolicy) Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName {
	return p.Spec.TargetRefs
}

// Ancestors are the entries of its status.
func (p *TrafficPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }

// LoadBalancingType is how one of several endpoints is chosen.
// +kubebuilder:validation:Enum=RoundRobin;LeastRequest;Random;RingHash;Maglev
type LoadBalancingType string

// Ways to choose an endpoint.
const (
	// LoadBalancingRoundRobin takes them in turn.
	LoadBalancingRoundRobin LoadBalancingType = "RoundRobin"
	// LoadBalancingLeastRequest takes, of two at random, the one with fewer requests.
	LoadBalancingLeastRequest LoadBalancingType = "LeastRequest"
	// LoadBalancingRandom takes any.
	LoadBalancingRandom LoadBalancingType = "Random"
	// LoadBalancingRingHash takes the same one for the same hash. When endpoints change, few hashes move.
	LoadBalancingRingHash LoadBalancingType = "RingHash"
	// LoadBalancingMaglev does so, too; it spreads more evenly, and more hashes move when endpoints change.
	LoadBalancingMaglev LoadBalancingType = "Maglev"
)

// LoadBalancing is how a waypoint chooses among the endpoints of a port.
//
// +kubebuilder:validation:XValidation:rule="has(self.hashBy) == (self.type in ['RingHash', 'Maglev'])",message="RingHash and Maglev need hashBy, and the other types take none"
type LoadBalancing struct {
	// RoundRobin, LeastRequest or Random; RingHash or Maglev to send what has the same hash to the same endpoint as long
	// as there is that endpoint.
	Type LoadBalancingType `json:"type"`

	// What is hashed, for RingHash and Maglev.
	// +optional
	HashBy *HashBy `json:"hashBy,omitempty"`
}

// HashBy is what is hashed; exactly one field is set. What doesn't have it (a request without the header or cookie, a
// connection to a port that isn't HTTP) goes to any endpoint.
//
// +kubebuilder:validation:XValidation:rule="(has(self.cookie) ? 1 : 0) + (has(self.header) ? 1 : 0) + (has(self.sourceAddress) ? 1 : 0) == 1",message="set exactly one of cookie, header and sourceAddress"
type HashBy struct {
	// A cookie of the request.
	// +optional
	Cookie *HashCookie `json:"cookie,omitempty"`
	// A header of the request.
	// +optional
	Header *HashHeader `json:"header,omitempty"`
	// The address of the pod that calls, whatever headers say. This works for TCP as well.
	// +optional
	SourceAddress *HashSourceAddress `json:"sourceAddress,omitempty"`
}

// HashCookie is a cookie that is hashed.
type HashCookie struct {
	// Name of the cookie.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`
	Name string `json:"name"`
	// How long the cookie lasts that the waypoint gives to a client without one; 0s: until the client ends its session.
	// Without a ttl, the cookie is the application's to set.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	TTL *metav1.Duration `json:"ttl,omitempty"`
}

// HashHeader is a header that is hashed.
type HashHeader struct {
	// Name of the header.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`
	Name string `json:"name"`
}

// HashSourceAddress has no settings.
type HashSourceAddress struct{}
