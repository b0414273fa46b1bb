// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// +kubebuilder:rbac:groups=fairway.dev,resources=authorizationpolicies,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairway.dev,resources=authorizationpolicies/status,verbs=update

// AuthorizationPolicy says who may connect to pods and Services of its namespace, and with what requests. What any DENY
// policy of the target matches is refused. Where a target has ALLOW policies of a level, one of them must match.
// Without any policy, all are let in, unless authorization.default of the Mesh is Deny. Kubelet's probes and the mesh's
// own proxies, which have decided already, are never refused.
//
// The fields are those of GEP-3779; action DENY, enforcementLevel Application with its attributes, names of rules and
// dryRun are Fairway's.
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:metadata:labels=gateway.networking.k8s.io/policy=Direct
// +kubebuilder:resource:scope=Namespaced,path=authorizationpolicies,singular=authorizationpolicy,shortName=authz,categories=fairway
// +kubebuilder:printcolumn:name="Level",type=string,JSONPath=`.spec.enforcementLevel`
// +kubebuilder:printcolumn:name="Action",type=string,JSONPath=`.spec.action`
// +kubebuilder:printcolumn:name="Dry run",type=boolean,JSONPath=`.spec.dryRun`
// +kubebuilder:printcolumn:name="Enforced",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Enforced")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type AuthorizationPolicy struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Who may do what.
	// +required
	Spec AuthorizationPolicySpec `json:"spec"`

	// Observed state: an entry for each target.
	// +optional
	Status gwv1.PolicyStatus `json:"status,omitempty"`
}

// PolicyReasonInvalidCEL is a reason of Accepted: a CEL expression of the policy can't be used, so it allows nothing,
// or denies everything.
const PolicyReasonInvalidCEL = "InvalidCEL"

func init() { register(&AuthorizationPolicy{}, &AuthorizationPolicyList{}) }

// AuthorizationPolicyList is a list of AuthorizationPolicy.
//
// +kubebuilder:object:root=true
type AuthorizationPolicyList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []AuthorizationPolicy `json:"items"`
}

// EnforcementLevel is where a policy is decided, and so what it can see (GEP-3779).
//
// +kubebuilder:validation:Enum=Network;Application
type EnforcementLevel string

const (
	// EnforcementLevelNetwork decides connections: who connects, to which port.
	EnforcementLevelNetwork EnforcementLevel = "Network"
	// EnforcementLevelApplication decides requests, at a waypoint.
	EnforcementLevelApplication EnforcementLevel = "Application"
)

// AuthorizationPolicyAction is what happens to what a policy matches.
//
// +kubebuilder:validation:Enum=ALLOW;DENY
type AuthorizationPolicyAction string

const (
	// ActionAllow lets in what a rule matches, and refuses what no ALLOW policy of the target matches.
	ActionAllow AuthorizationPolicyAction = "ALLOW"
	// ActionDeny refuses what a rule matches, whatever other policies allow.
	ActionDeny AuthorizationPolicyAction = "DENY"
)

// AuthorizationPolicySpec is the desired state of an AuthorizationPolicy.
//
// +kubebuilder:validation:XValidation:rule="self.enforcementLevel == 'Application' || !has(self.rules) || self.rules.all(r, !has(r.applicationAttributes))",message="applicationAttributes need enforcementLevel Application: a node proxy sees connections, not requests"
// +kubebuilder:validation:XValidation:rule="self.enforcementLevel == 'Application' || self.targetRefs.all(t, t.kind in ['Pod', 'Namespace', 'Service'])",message="enforcementLevel Network targets Pod (by selector), Namespace or Service"
// +kubebuilder:validation:XValidation:rule="self.enforcementLevel == 'Network' || self.targetRefs.all(t, t.kind in ['Service', 'HTTPRoute', 'GRPCRoute', 'Gateway'])",message="enforcementLevel Application targets Service, HTTPRoute, GRPCRoute or Gateway: pods are reached without a waypoint, where no one sees requests"
// +kubebuilder:validation:XValidation:rule="self.action == 'ALLOW' || (has(self.rules) && size(self.rules) > 0)",message="a DENY policy without rules denies nothing: add a rule ('- {}' matches everything)"
type AuthorizationPolicySpec struct {
	// What the policy is for, in its own namespace. Pods by selector must be the only target.
	// +required
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:XValidation:rule="size(self) == 1 || self.all(t, t.kind != 'Pod')",message="a target of kind Pod must be the only one"
	TargetRefs []AuthorizationTarget `json:"targetRefs"`

	// Where the policy is enforced: Network (by the node proxy of each pod, and by waypoints on the original caller's
	// identity) or Application (by the waypoint of a Service, which the policy brings if there is none).
	// +required
	EnforcementLevel EnforcementLevel `json:"enforcementLevel"`

	// Whether what matches is let in or refused.
	// +required
	Action AuthorizationPolicyAction `json:"action"`

	// Rules; what matches any of them, the policy matches. An ALLOW policy without rules lets nobody in.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=64
	Rules []AuthorizationRule `json:"rules,omitempty"`

	// Whether the policy is only tried: nothing is refused because of it; what it would refuse is counted and logged.
	// +optional
	DryRun bool `json:"dryRun,omitempty"`
}

// AuthorizationTarget names an object in the policy's namespace, or pods by their labels.
//
// +kubebuilder:validation:XValidation:rule="has(self.selector) == (self.kind == 'Pod')",message="kind Pod needs a selector (selector: {} selects all pods of the namespace), and no other kind has one"
// +kubebuilder:validation:XValidation:rule="has(self.name) == !(self.kind in ['Pod', 'Namespace'])",message="name the target; kinds Pod and Namespace have no name: they are the policy's own namespace"
// +kubebuilder:validation:XValidation:rule="self.kind in ['HTTPRoute', 'GRPCRoute', 'Gateway'] ? self.group == 'gateway.networking.k8s.io' : size(self.group) == 0",message="group must be gateway.networking.k8s.io for HTTPRoute, GRPCRoute and Gateway, and empty for Pod, Namespace and Service"
type AuthorizationTarget struct {
	// API group of the target: empty for Pod, Namespace and Service.
	// +optional
	// +kubebuilder:default=""
	Group gwv1.Group `json:"group"`

	// Kind of the target.
	// +required
	Kind gwv1.Kind `json:"kind"`

	// Name of the target.
	// +optional
	Name gwv1.ObjectName `json:"name,omitempty"`

	// Labels of the pods, with kind Pod. The empty selector selects all pods of the namespace.
	// +optional
	Selector *metav1.LabelSelector `json:"selector,omitempty"`
}

// AuthorizationRule matches what all of its fields match.
type AuthorizationRule struct {
	// Name of the rule, for logs, metrics and "fairway explain".
	// +optional
	Name gwv1.SectionName `json:"name,omitempty"`

	// Who: one of the sources must match. An empty list matches nobody; without the field everybody matches, callers
	// without an identity included.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=128
	Sources []AuthorizationSource `json:"sources,omitzero"`

	// What of the connection must match.
	// +optional
	NetworkAttributes *AuthorizationNetworkAttributes `json:"networkAttributes,omitempty"`

	// What of the request must match.
	// +optional
	ApplicationAttributes *AuthorizationApplicationAttributes `json:"applicationAttributes,omitempty"`
}

// AuthorizationSourceType is how a source is named.
//
// +kubebuilder:validation:Enum=ServiceAccount;SPIFFE
type AuthorizationSourceType string

const (
	// AuthorizationSourceTypeServiceAccount names a ServiceAccount of this cluster.
	AuthorizationSourceTypeServiceAccount AuthorizationSourceType = "ServiceAccount"
	// AuthorizationSourceTypeSPIFFE names a SPIFFE ID.
	AuthorizationSourceTypeSPIFFE AuthorizationSourceType = "SPIFFE"
)

// AuthorizationSource is one identity, or all of a namespace.
//
// +kubebuilder:validation:XValidation:rule="has(self.serviceAccount) == (self.type == 'ServiceAccount') && has(self.spiffe) == (self.type == 'SPIFFE')",message="set serviceAccount with type ServiceAccount, or spiffe with type SPIFFE"
type AuthorizationSource struct {
	// How the source is named.
	// +unionDiscriminator
	// +required
	Type AuthorizationSourceType `json:"type"`

	// A SPIFFE ID, which must be equal: spiffe://<trust domain>/<workload>.
	// +optional
	SPIFFE *SPIFFEID `json:"spiffe,omitempty"`

	// A ServiceAccount of this cluster.
	// +optional
	ServiceAccount *AuthorizationServiceAccount `json:"serviceAccount,omitempty"`
}

// SPIFFEID is the identity of a workload.
//
// +kubebuilder:validation:MaxLength=2048
// +kubebuilder:validation:Pattern=`^spiffe://[a-z0-9._-]+(/[A-Za-z0-9._-]+)+$`
type SPIFFEID string

// AuthorizationServiceAccount names a ServiceAccount.
type AuthorizationServiceAccount struct {
	// Namespace of the ServiceAccount. Default: the policy's.
	// +optional
	Namespace *gwv1.Namespace `json:"namespace,omitempty"`

	// Name of the ServiceAccount; "*" for all of the namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^(\*|[a-z0-9]([-a-z0-9.]*[a-z0-9])?)$`
	Name string `json:"name"`
}

// AuthorizationNetworkAttributes are what a connection shows.
type AuthorizationNetworkAttributes struct {
	// Destination ports, one of which must match: of the pod, where the target is Pod or Namespace; of the Service, where
	// it is a Service; of the Services that a route or Gateway serves. Default: all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	Ports []gwv1.PortNumber `json:"ports,omitempty"`
}

// AuthorizationAttributesType is how a request is described.
//
// +kubebuilder:validation:Enum=Inline;CEL
type AuthorizationAttributesType string

const (
	// AuthorizationAttributesInline describes it by fields.
	AuthorizationAttributesInline AuthorizationAttributesType = "Inline"
	// AuthorizationAttributesCEL describes it by an expression.
	AuthorizationAttributesCEL AuthorizationAttributesType = "CEL"
)

// AuthorizationApplicationAttributes are what a request shows. Each field that is set must match; within a list of
// methods, paths, hosts or grpcMethods, one entry must; of headers and jwtClaims, all must.
//
// +kubebuilder:validation:XValidation:rule="(self.type == 'CEL') == has(self.cel)",message="set cel with type CEL, and only then"
// +kubebuilder:validation:XValidation:rule="self.type == 'Inline' || !(has(self.methods) || has(self.paths) || has(self.hosts) || has(self.headers) || has(self.grpcMethods) || has(self.jwtClaims))",message="type CEL has no fields but cel"
type AuthorizationApplicationAttributes struct {
	// How the request is described.
	// +unionDiscriminator
	// +optional
	// +kubebuilder:default=Inline
	Type AuthorizationAttributesType `json:"type,omitempty"`

	// HTTP methods.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	// +kubebuilder:validation:items:MaxLength=64
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`
	Methods []string `json:"methods,omitempty"`

	// Paths, as the application gets them: without query, normalized.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Paths []AuthorizationPath `json:"paths,omitempty"`

	// Hosts that the request is for, without port; "*.example.org" for all below example.org.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	Hosts []gwv1.Hostname `json:"hosts,omitempty"`

	// Headers, all of which must match.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	Headers []AuthorizationHeader `json:"headers,omitempty"`

	// Methods of gRPC services.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	GRPCMethods []AuthorizationGRPCMethod `json:"grpcMethods,omitempty"`

	// Claims of the request's verified JSON Web Token, all of which must match.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=16
	JWTClaims []AuthorizationJWTClaim `json:"jwtClaims,omitempty"`

	// An expression that is true for what matches.
	// +optional
	CEL *AuthorizationCEL `json:"cel,omitempty"`
}

// AuthorizationMatchType is how a path or a header is compared.
//
// +kubebuilder:validation:Enum=Exact;Prefix;RegularExpression
type AuthorizationMatchType string

const (
	// AuthorizationMatchExact is equality.
	AuthorizationMatchExact AuthorizationMatchType = "Exact"
	// AuthorizationMatchPrefix is a common beginning; of paths, whole elements.
	AuthorizationMatchPrefix AuthorizationMatchType = "Prefix"
	// AuthorizationMatchRegularExpression is RE2, of the whole value.
	AuthorizationMatchRegularExpression AuthorizationMatchType = "RegularExpression"
)

// AuthorizationPath is a path or a set of paths.
type AuthorizationPath struct {
	// How the path is compared.
	// +optional
	// +kubebuilder:default=Exact
	Type AuthorizationMatchType `json:"type,omitempty"`

	// What it is compared with.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	Value string `json:"value"`
}

// AuthorizationHeader is a header. One that occurs several times, or has a list as its value, matches with any of its
// values in a DENY policy, and with all of them in an ALLOW policy.
type AuthorizationHeader struct {
	// Name of the header, in any case. It has five hyphens and underscores at most: some applications take one for the
	// other, so all spellings are matched.
	// +required
	Name gwv1.HTTPHeaderName `json:"name"`

	// How the value is compared.
	// +optional
	// +kubebuilder:default=Exact
	Type AuthorizationMatchType `json:"type,omitempty"`

	// What it is compared with. Without it, the header must be there.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Value *string `json:"value,omitempty"`
}

// AuthorizationGRPCMethod is a method of a gRPC service.
type AuthorizationGRPCMethod struct {
	// Full name of the service.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_.]*$`
	Service string `json:"service"`

	// Name of the method. Default: all of the service.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^[A-Za-z_][A-Za-z0-9_]*$`
	Method string `json:"method,omitempty"`
}

// AuthorizationJWTClaim is a claim of a token that an AuthenticationPolicy of the target has verified. No other token
// claims anything.
type AuthorizationJWTClaim struct {
	// Name of the claim; that of a nested one has dots, as in realm_access.roles.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=256
	Name string `json:"name"`

	// Values, one of which the claim must have, or contain if it is a list. Claim scope is a list of words. Numbers and
	// true and false are compared as they are written in JSON.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=32
	// +kubebuilder:validation:items:MaxLength=1024
	Values []string `json:"values"`
}

// AuthorizationCEL is an expression over Envoy's attributes of requests and connections.
type AuthorizationCEL struct {
	// The expression, such as request.headers['x-tenant'] == 'a'.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=4096
	Expression string `json:"expression"`
}

// Targets are what the policy names by name.
func (p *AuthorizationPolicy) Targets() (out []gwv1.LocalPolicyTargetReferenceWithSectionName) {
	for _, t := range p.Spec.TargetRefs {
		if t.Name != "" {
			out = append(out, gwv1.LocalPolicyTargetReferenceWithSectionName{
				LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Group: t.Group, Kind: t.Kind, Name: t.Name},
			})
		}
	}
	return out
}

// Ancestors are the entries of the status.
func (p *AuthorizationPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }
