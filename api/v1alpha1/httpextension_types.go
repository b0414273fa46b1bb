// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// +kubebuilder:rbac:groups=fairway.dev,resources=httpextensions,verbs=get;list;watch
// +kubebuilder:rbac:groups=fairway.dev,resources=httpextensions/status,verbs=update

// KindHTTPExtension is the kind that filters ExtensionRef of routes name.
const KindHTTPExtension = "HTTPExtension"

// HTTPExtension is what a waypoint runs the requests and answers of a rule through: a script, a module, or a Service
// that processes them. Rules of HTTPRoutes and GRPCRoutes of its namespace name it by the filter ExtensionRef.
// Waypoints run the types that spec.extensions of the Mesh allows in their namespace, which is none unless it says so.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Namespaced,path=httpextensions,singular=httpextension,categories=fairway
// +kubebuilder:printcolumn:name="Programmed",type=string,JSONPath=`.status.ancestors[*].conditions[?(@.type=="Programmed")].status`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type HTTPExtension struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// What is run.
	Spec HTTPExtensionSpec `json:"spec"`
	// Services whose requests go through it, and whether they do; the Mesh while there are none.
	// +optional
	Status gwv1.PolicyStatus `json:"status,omitempty"`
}

func init() { register(&HTTPExtension{}, &HTTPExtensionList{}) }

// HTTPExtensionList is a list of HTTPExtension.
//
// +kubebuilder:object:root=true
type HTTPExtensionList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []HTTPExtension `json:"items"`
}

// HTTPExtensionSpec is what an HTTPExtension runs; exactly one field is set.
//
// +kubebuilder:validation:XValidation:rule="[has(self.lua), has(self.extProc), has(self.wasm)].exists_one(set, set)",message="set exactly one of lua, extProc and wasm"
type HTTPExtensionSpec struct {
	// A script that each proxy of the waypoint runs. Needs type Lua in spec.extensions of the Mesh.
	// +optional
	Lua *LuaExtension `json:"lua,omitempty"`

	// A Service that is asked about each request and each answer. Needs type ExternalProcessing in spec.extensions of the
	// Mesh.
	// +optional
	ExtProc *ExternalProcessing `json:"extProc,omitempty"`

	// A module that each proxy of the waypoint runs. Needs type Wasm in spec.extensions of the Mesh.
	// +optional
	Wasm *WasmExtension `json:"wasm,omitempty"`
}

// Targets are what a policy names; an extension is named by others.
func (e *HTTPExtension) Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName { return nil }

// Ancestors are the entries of its status.
func (e *HTTPExtension) Ancestors() *[]gwv1.PolicyAncestorStatus { return &e.Status.Ancestors }

// LuaExtension is a script.
type LuaExtension struct {
	// The script, in Lua 5.1. It defines envoy_on_request(handle), envoy_on_response(handle) or both, in which it has a
	// part of what Envoy's filter for Lua offers: headers, bodies, an answer of its own and the log.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=32768
	Source string `json:"source"`
}

// WasmExtension is a module in WebAssembly that speaks Proxy-Wasm (ABI 0.2.0 or 0.2.1). It can change headers and
// bodies, and answer by itself.
//
// +kubebuilder:validation:XValidation:rule="has(self.request) || has(self.response)",message="set request, response or both: what the module is shown"
type WasmExtension struct {
	// The ConfigMap, of the extension's namespace, that has the module: at most 1 MiB under key module.wasm of binaryData.
	// An edit of it takes effect.
	// +required
	ConfigMapRef WasmConfigMapReference `json:"configMapRef"`

	// The SHA-256 of the module, in hexadecimal digits. Any other module is refused.
	// +optional
	// +kubebuilder:validation:Pattern=`^[0-9a-f]{64}$`
	SHA256 string `json:"sha256,omitempty"`

	// What the module is given as its plugin configuration, which is up to the module.
	// +optional
	// +kubebuilder:validation:MaxLength=16384
	Config string `json:"config,omitempty"`

	// Which of the module's root contexts is meant, where it has several.
	// +optional
	// +kubebuilder:validation:MaxLength=128
	RootID string `json:"rootID,omitempty"`

	// What the module is shown of requests. Default: nothing.
	// +optional
	Request *WasmMessage `json:"request,omitempty"`

	// What the module is shown of answers. Default: nothing.
	// +optional
	Response *WasmMessage `json:"response,omitempty"`
}

// WasmConfigMapReference names the ConfigMap that has a module.
type WasmConfigMapReference struct {
	// The name of the ConfigMap.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`
}

// WasmMessage is what a module is shown of a request, or of an answer. It is always shown the headers.
type WasmMessage struct {
	// None, or Streamed, which shows the body piece by piece. A message whose body is shown goes on without
	// Content-Length.
	// +optional
	// +kubebuilder:default=None
	Body WasmBody `json:"body,omitempty"`
}

// WasmBody is how a body is shown.
//
// +kubebuilder:validation:Enum=None;Streamed
type WasmBody string

// Ways to show a body to a module.
const (
	WasmBodyNone     WasmBody = "None"
	WasmBodyStreamed WasmBody = "Streamed"
)

// ExternalProcessing is a Service that speaks Envoy's protocol of external processing
// (envoy.service.ext_proc.v3.ExternalProcessor). It can change headers and bodies, and answer by itself.
//
// +kubebuilder:validation:XValidation:rule="has(self.request) || has(self.response)",message="set request, response or both: what the service is shown"
type ExternalProcessing struct {
	// The port of the Service, one that is declared as HTTP/2 (appProtocol kubernetes.io/h2c). In another namespace, a
	// ReferenceGrant must allow HTTPExtensions of this namespace to refer to it.
	// +required
	BackendRef gwv1.BackendObjectReference `json:"backendRef"`

	// What the service is shown of requests. Default: nothing.
	// +optional
	Request *ProcessedMessage `json:"request,omitempty"`

	// What the service is shown of answers. Default: nothing.
	// +optional
	Response *ProcessedMessage `json:"response,omitempty"`

	// Names of the headers that the service may change, of requests and answers. Changes of others have no effect.
	// Default: all but those that say who calls, where a request goes, where a message ends, or what the proxy does.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=64
	// +kubebuilder:validation:items:MaxLength=128
	// +kubebuilder:validation:items:Pattern=`^[A-Za-z0-9!#$%&'+.^_|~-]+$`
	AllowedHeaders []string `json:"allowedHeaders,omitempty"`

	// What becomes of requests that the service doesn't answer about: Closed answers 503, Open goes on without it.
	// +optional
	// +kubebuilder:default=Closed
	FailureMode FailureMode `json:"failureMode,omitempty"`

	// How long to wait for each answer of the service. Default 1s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|ms)){1,2}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1m')",message="timeout must be from 10ms to 1m"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// ProcessedMessage is what the service is shown of a request, or of an answer. It is always shown the headers.
type ProcessedMessage struct {
	// None; Buffered shows the body as a whole, of which a request and an answer may have 1 MiB; Streamed shows it
	// piece by piece.
	// +optional
	// +kubebuilder:default=None
	Body ProcessedBody `json:"body,omitempty"`

	// Shows trailers, if there are any.
	// +optional
	Trailers bool `json:"trailers,omitempty"`
}

// ProcessedBody is how a body is shown.
//
// +kubebuilder:validation:Enum=None;Buffered;Streamed
type ProcessedBody string

// Ways to show a body.
const (
	ProcessedBodyNone     ProcessedBody = "None"
	ProcessedBodyBuffered ProcessedBody = "Buffered"
	ProcessedBodyStreamed ProcessedBody = "Streamed"
)
