// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// ProxyParameters configure the Deployment of a proxy: replicas, resources, placement. A GatewayClass refers to them
// (spec.parametersRef, with a namespace) for all its Gateways, or a Gateway (spec.infrastructure.parametersRef) for
// itself. Each field that the Gateway's parameters set overrides the class's.
//
// +kubebuilder:object:root=true
// +kubebuilder:resource:scope=Namespaced,path=proxyparameters,singular=proxyparameters,shortName=pparams,categories=fairway
// +kubebuilder:printcolumn:name="Replicas",type=integer,JSONPath=`.spec.replicas`
// +kubebuilder:printcolumn:name="Min",type=integer,JSONPath=`.spec.autoscaling.minReplicas`
// +kubebuilder:printcolumn:name="Max",type=integer,JSONPath=`.spec.autoscaling.maxReplicas`
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
type ProxyParameters struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// The parameters. Fields that aren't set have their defaults.
	// +optional
	// +kubebuilder:default={}
	Spec ProxyParametersSpec `json:"spec,omitempty"`
}

func init() { register(&ProxyParameters{}, &ProxyParametersList{}) }

// ProxyParametersList is a list of ProxyParameters.
//
// +kubebuilder:object:root=true
type ProxyParametersList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []ProxyParameters `json:"items"`
}

// ProxyParametersSpec configures a proxy's Deployment.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.replicas) && has(self.autoscaling))",message="set replicas or autoscaling, not both: the autoscaler would undo a fixed number of replicas"
// +kubebuilder:validation:XValidation:rule="!has(self.drainTimeout) || !has(self.terminationGracePeriod) || duration(self.drainTimeout) < duration(self.terminationGracePeriod)",message="drainTimeout must be shorter than terminationGracePeriod, or connections are cut while they drain"
// +kubebuilder:validation:XValidation:rule="!has(self.terminationGracePeriod) || has(self.drainTimeout) || duration(self.terminationGracePeriod) > duration('30s')",message="terminationGracePeriod must be longer than drainTimeout, which is 30s unless set"
type ProxyParametersSpec struct {
	// A fixed number of proxies. Without replicas and autoscaling, the proxies scale by CPU from 2 to 10, or from 1 where
	// only one node may run them.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	Replicas *int32 `json:"replicas,omitempty"`

	// Scaling by CPU with a HorizontalPodAutoscaler.
	// +optional
	Autoscaling *Autoscaling `json:"autoscaling,omitempty"`

	// How many proxies may be unavailable at a time, for example when a node is drained. Default: maxUnavailable 1.
	// +optional
	DisruptionBudget *DisruptionBudget `json:"disruptionBudget,omitempty"`

	// Resources of the proxy (Envoy). Autoscaling needs a request for cpu. Default: 100m CPU and 128Mi requested.
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`

	// Resources of the agent beside the proxy. Default: 10m CPU and 32Mi requested.
	// +optional
	AgentResources *corev1.ResourceRequirements `json:"agentResources,omitempty"`

	// Nodes that may run the proxies, by their labels.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Taints that the proxies tolerate.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`

	// Affinity of the proxies. Default: rather not two on one node.
	// +optional
	Affinity *corev1.Affinity `json:"affinity,omitempty"`

	// How the proxies spread. Default: over zones and nodes where possible. A constraint without labelSelector selects
	// this proxy's pods.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=16
	TopologySpreadConstraints []corev1.TopologySpreadConstraint `json:"topologySpreadConstraints,omitempty"`

	// Which of the proxies callers prefer: those on their own node, or in their own zone, as long as there are any. That
	// saves a way through the network, and leaves a proxy to its node's callers, however many those are. Default: all
	// proxies alike. PreferSameNode needs Kubernetes 1.34.
	// +optional
	// +kubebuilder:validation:Enum=PreferSameNode;PreferSameZone;PreferClose
	TrafficDistribution string `json:"trafficDistribution,omitempty"`

	// Additional labels of the pods. Labels of the mesh and of the Gateway API can't be set here.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('fairway.dev/') && !k.startsWith('gateway.networking.k8s.io/') && !k.startsWith('app.kubernetes.io/'))",message="labels under fairway.dev/, gateway.networking.k8s.io/ and app.kubernetes.io/ are reserved for the operator"
	PodLabels map[string]string `json:"podLabels,omitempty"`

	// Additional annotations of the pods. Annotations of the mesh can't be set here.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	// +kubebuilder:validation:XValidation:rule="self.all(k, !k.startsWith('fairway.dev/'))",message="annotations under fairway.dev/ are reserved for the operator"
	PodAnnotations map[string]string `json:"podAnnotations,omitempty"`

	// Priority class of the pods.
	// +optional
	// +kubebuilder:validation:MaxLength=253
	PriorityClassName string `json:"priorityClassName,omitempty"`

	// Images of the proxies, and how nodes pull them: what is given here wins over the Mesh. With another Envoy for one
	// Gateway, a version can be tried.
	// +optional
	Images *Images `json:"images,omitempty"`

	// Log level of the proxy. Default warning.
	// +optional
	LogLevel LogLevel `json:"logLevel,omitempty"`

	// Worker threads of the proxy. Default 2.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	Concurrency *int32 `json:"concurrency,omitempty"`

	// Limits of the headers that the proxies accept. Default: 1024 KiB and 10000 headers, more than most servers accept.
	// +optional
	HeaderLimits *HeaderLimits `json:"headerLimits,omitempty"`

	// How long a terminating proxy lets its connections finish. Default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('1h')",message="drainTimeout must be at most 1h"
	DrainTimeout *metav1.Duration `json:"drainTimeout,omitempty"`

	// When a terminating proxy is killed, in whole seconds. Default: 10s after drainTimeout.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('2h')",message="terminationGracePeriod must be from 1s to 2h"
	TerminationGracePeriod *metav1.Duration `json:"terminationGracePeriod,omitempty"`
}

// Autoscaling by CPU.
//
// +kubebuilder:validation:XValidation:rule="self.minReplicas <= self.maxReplicas",message="minReplicas must not be above maxReplicas"
type Autoscaling struct {
	// Minimum number of proxies.
	// +optional
	// +kubebuilder:default=1
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MinReplicas int32 `json:"minReplicas,omitempty"`

	// Maximum number of proxies.
	// +optional
	// +kubebuilder:default=10
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	MaxReplicas int32 `json:"maxReplicas,omitempty"`

	// Target CPU utilization, in percent of the request.
	// +optional
	// +kubebuilder:default=80
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000
	TargetCPU int32 `json:"targetCPU,omitempty"`
}

// HeaderLimits of one request or one response. A request with more gets a 431, or its stream is reset (HTTP/2); a
// response with more becomes a 502. Proxies hold headers in memory until they have received all of them.
type HeaderLimits struct {
	// All headers together, in KiB. Trailers are counted separately. In HTTP/2, one header has at most 256 KiB.
	// +optional
	// +kubebuilder:default=1024
	// +kubebuilder:validation:Minimum=64
	// +kubebuilder:validation:Maximum=8192
	SizeKiB int32 `json:"sizeKiB,omitempty"`

	// Number of headers.
	// +optional
	// +kubebuilder:default=10000
	// +kubebuilder:validation:Minimum=50
	// +kubebuilder:validation:Maximum=100000
	Count int32 `json:"count,omitempty"`
}

// DisruptionBudget of a proxy's pods; exactly one of its fields is set.
//
// +kubebuilder:validation:XValidation:rule="has(self.minAvailable) != has(self.maxUnavailable)",message="set exactly one of minAvailable and maxUnavailable"
type DisruptionBudget struct {
	// Proxies that must stay available: a number, or a percentage such as "50%". If it equals the number of replicas,
	// nodes can't be drained.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:Pattern=`^[0-9]{1,3}%$`
	// +kubebuilder:validation:XValidation:rule="type(self) != int || self >= 0",message="must be at least 0"
	MinAvailable *intstr.IntOrString `json:"minAvailable,omitempty"`

	// Proxies that may be unavailable: a number, or a percentage such as "50%".
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:Pattern=`^[0-9]{1,3}%$`
	// +kubebuilder:validation:XValidation:rule="type(self) != int || self >= 0",message="must be at least 0"
	MaxUnavailable *intstr.IntOrString `json:"maxUnavailable,omitempty"`
}
