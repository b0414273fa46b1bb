// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// ExternalAuthorization is a service that lets requests pass or not, and that may change their headers. It is asked
// when the request's tokens have been verified. The fields are those of filter ExternalAuth of HTTPRoutes, and
// failureMode and timeout.
//
// +kubebuilder:validation:XValidation:rule="!has(self.grpc) || self.protocol == 'GRPC'",message="grpc is for protocol GRPC"
// +kubebuilder:validation:XValidation:rule="!has(self.http) || self.protocol == 'HTTP'",message="http is for protocol HTTP"
type ExternalAuthorization struct {
	// How the service is asked: GRPC is Envoy's protocol (envoy.service.auth.v3), HTTP a request with the method, host and
	// path of the one that it is about, to which 200 is yes.
	// +required
	Protocol ExternalAuthorizationProtocol `json:"protocol"`

	// The port of the Service that is asked, for protocol GRPC one that is declared as HTTP/2 (appProtocol
	// kubernetes.io/h2c). In another namespace, a ReferenceGrant must allow AuthenticationPolicies of this namespace to
	// refer to it.
	// +required
	BackendRef gwv1.BackendObjectReference `json:"backendRef"`

	// What a service of protocol GRPC is shown. Default: all headers.
	// +optional
	GRPC *ExternalAuthorizationGRPC `json:"grpc,omitempty"`

	// Where a service of protocol HTTP is asked, what it is shown, and what goes on with the request.
	// +optional
	HTTP *ExternalAuthorizationHTTP `json:"http,omitempty"`

	// Shows the service the body of a request. Default: it isn't shown.
	// +optional
	ForwardBody *ExternalAuthorizationBody `json:"forwardBody,omitempty"`

	// What becomes of requests while the service can't be asked or doesn't answer: Closed refuses them with 503, Open lets
	// them pass.
	// +optional
	// +kubebuilder:default=Closed
	FailureMode FailureMode `json:"failureMode,omitempty"`

	// How long to wait for an answer. Default 5s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|ms)){1,2}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1m')",message="timeout must be from 10ms to 1m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// ExternalAuthorizationProtocol is how an authorization service is asked.
//
// +kubebuilder:validation:Enum=GRPC;HTTP
type ExternalAuthorizationProtocol string

// Protocols of authorization services.
const (
	ExternalAuthorizationByGRPC ExternalAuthorizationProtocol = "GRPC"
	ExternalAuthorizationByHTTP ExternalAuthorizationProtocol = "HTTP"
)

// ExternalAuthorizationGRPC is what a service of protocol GRPC is shown.
type ExternalAuthorizationGRPC struct {
	// Headers of the request that the service is shown, and no others. Default: all.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	AllowedHeaders []string `json:"allowedHeaders,omitempty"`
}

// ExternalAuthorizationHTTP is how a service of protocol HTTP is asked.
type ExternalAuthorizationHTTP struct {
	// What goes before the path of the request.
	// +optional
	// +kubebuilder:validation:MaxLength=1024
	// +kubebuilder:validation:Pattern=`^/[-A-Za-z0-9/._~!$&'()*+,=:@]*$`
	Path string `json:"path,omitempty"`

	// Headers of the request that the service is shown besides Authorization.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	AllowedHeaders []string `json:"allowedHeaders,omitempty"`

	// Headers of the answer that go on with the request. No caller can bring them, unless the service is shown them.
	// Default: all headers of the answer, next to what the caller brings.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	AllowedResponseHeaders []string `json:"allowedResponseHeaders,omitempty"`
}

// ExternalAuthorizationBody is about bodies that a service is shown.
type ExternalAuthorizationBody struct {
	// How many bytes a body may have, all of which the service is shown. Requests with a longer one are answered 413.
	// +required
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65535
	MaxSize int32 `json:"maxSize"`
}
