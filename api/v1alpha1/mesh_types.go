// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// Mesh switches the mesh on in this cluster and holds its settings. There is one, named "default". Creating it starts a
// node proxy on every node; deleting it releases every captured pod, then removes the node proxies.
//
// +kubebuilder:object:root=true
// +kubebuilder:subresource:status
// +kubebuilder:resource:scope=Cluster,path=meshes,singular=mesh,shortName={mesh,fwm},categories=fairway
// +kubebuilder:printcolumn:name="Ready",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].status`
// +kubebuilder:printcolumn:name="Nodes",type=string,JSONPath=`.status.nodes.summary`,description="Nodes with a ready proxy, of all nodes that should have one"
// +kubebuilder:printcolumn:name="Trust domain",type=string,JSONPath=`.spec.trustDomain`
// +kubebuilder:printcolumn:name="mTLS",type=string,JSONPath=`.spec.mtls.mode`,priority=1
// +kubebuilder:printcolumn:name="Outbound",type=string,JSONPath=`.spec.outbound`,priority=1
// +kubebuilder:printcolumn:name="Captured pods",type=integer,JSONPath=`.status.nodes.capturedPods`,priority=1
// +kubebuilder:printcolumn:name="Reason",type=string,JSONPath=`.status.conditions[?(@.type=="Ready")].reason`,priority=1
// +kubebuilder:printcolumn:name="Age",type=date,JSONPath=`.metadata.creationTimestamp`
// +kubebuilder:validation:XValidation:rule="self.metadata.name == 'default'",message="the one Mesh of a cluster must be named 'default'"
type Mesh struct {
	metav1.TypeMeta   `json:",inline"`
	metav1.ObjectMeta `json:"metadata,omitempty"`

	// Settings of the mesh. Every field has a default, so an empty spec is a working mesh.
	// +optional
	// +kubebuilder:default={}
	Spec MeshSpec `json:"spec,omitempty"`

	// Observed state of the mesh. Only the operator writes it.
	// +optional
	Status MeshStatus `json:"status,omitempty"`
}

func init() { register(&Mesh{}, &MeshList{}) }

// MeshList is a list of Mesh.
//
// +kubebuilder:object:root=true
type MeshList struct {
	metav1.TypeMeta `json:",inline"`
	metav1.ListMeta `json:"metadata,omitempty"`
	Items           []Mesh `json:"items"`
}

// MeshSpec is the desired state of the mesh.
//
// +kubebuilder:validation:XValidation:rule="(has(self.certificates) && has(self.certificates.spire)) == (has(oldSelf.certificates) && has(oldSelf.certificates.spire))",message="certificates.spire can't be set or removed later: proxies trust one source of identities, and those of the other would be refused; delete the Mesh and create it again"
type MeshSpec struct {
	// SPIFFE trust domain: the first part of every identity, "spiffe://<trustDomain>/ns/<namespace>/sa/<serviceAccount>".
	// It can't be changed later, because every certificate and policy carries it.
	// +optional
	// +kubebuilder:default=cluster.local
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`
	// +kubebuilder:validation:XValidation:rule="self == oldSelf",message="trustDomain can't be changed: every certificate carries it; delete the Mesh and create it again with the new trust domain"
	TrustDomain string `json:"trustDomain,omitempty"`

	// Where the mesh's certificates come from, and how long they live. Default: from a root that the operator creates.
	// +optional
	Certificates *Certificates `json:"certificates,omitempty"`

	// Mutual TLS of captured pods.
	// +optional
	// +kubebuilder:default={}
	MTLS MTLS `json:"mtls,omitempty"`

	// Where captured pods may send, over any protocol. Allow: anywhere. Deny: only to the cluster's pod and service ranges
	// and its DNS; what they send elsewhere, to addresses of nodes too, is refused at once, and connections that they have
	// open there end. They may answer whoever reaches them. Label "fairway.dev/outbound: allow|deny" of a namespace or a
	// pod overrides this.
	// +optional
	// +kubebuilder:default=Allow
	Outbound OutboundMode `json:"outbound,omitempty"`

	// Address ranges whose traffic the mesh captures. Set them where the operator can't find them in the cluster.
	// +optional
	Network *Network `json:"network,omitempty"`

	// Hosts outside the cluster that requests may leave for (XBackends of the Gateway API).
	// +optional
	ExternalBackends *ExternalBackends `json:"externalBackends,omitempty"`

	// The proxy and the agent on every node.
	// +optional
	Node *Node `json:"node,omitempty"`

	// Images of the proxies, and how nodes pull them. Parameters of a class or a Gateway (ProxyParameters) may say
	// otherwise for their waypoints.
	// +optional
	Images *Images `json:"images,omitempty"`

	// While this is true, no proxy is replaced: the DaemonSet of node proxies and the Deployments of waypoints stay as
	// they are, whatever is changed or upgraded. Those that are missing are made. Routes, policies and certificates go on.
	// +optional
	Paused bool `json:"paused,omitempty"`

	// What the proxies log about each connection and request.
	// +optional
	// +kubebuilder:default={}
	AccessLog AccessLog `json:"accessLog,omitempty"`

	// Who may connect to pods in the mesh that no AuthorizationPolicy allows anything for.
	// +optional
	// +kubebuilder:default={}
	Authorization Authorization `json:"authorization,omitempty"`

	// Which HTTPExtensions waypoints may run. Default: none.
	// +optional
	Extensions *Extensions `json:"extensions,omitempty"`
}

// Extensions that waypoints may run.
type Extensions struct {
	// Each entry allows types of extensions in the waypoints of some namespaces.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Allow []AllowedExtensions `json:"allow,omitempty"`
}

// AllowedExtensions are types of extensions that the waypoints of some namespaces may run.
type AllowedExtensions struct {
	// Lua lets whoever writes routes and HTTPExtensions run scripts in these waypoints, Wasm lets them run modules there,
	// of which one that never ends stops the waypoint, and ExternalProcessing lets them send requests and answers through
	// Services of their choice.
	// +required
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	Types []ExtensionType `json:"types"`

	// Namespaces of the waypoints, by label. Default: all.
	// +optional
	NamespaceSelector *metav1.LabelSelector `json:"namespaceSelector,omitempty"`
}

// ExtensionType is what an HTTPExtension is.
//
// +kubebuilder:validation:Enum=Lua;ExternalProcessing;Wasm
type ExtensionType string

// Types of extensions.
const (
	ExtensionLua                ExtensionType = "Lua"
	ExtensionExternalProcessing ExtensionType = "ExternalProcessing"
	ExtensionWasm               ExtensionType = "Wasm"
)

// OutboundMode is whether captured pods may send to addresses outside of the mesh's ranges.
//
// +kubebuilder:validation:Enum=Allow;Deny
type OutboundMode string

const (
	// OutboundAllow lets captured pods send anywhere.
	OutboundAllow OutboundMode = "Allow"
	// OutboundDeny keeps them from addresses outside of the mesh's ranges.
	OutboundDeny OutboundMode = "Deny"
)

// AuthorizationDefault is what becomes of connections that no AuthorizationPolicy speaks of.
//
// +kubebuilder:validation:Enum=Allow;Deny
type AuthorizationDefault string

const (
	// AuthorizationDefaultAllow lets in whom no policy refuses.
	AuthorizationDefaultAllow AuthorizationDefault = "Allow"
	// AuthorizationDefaultDeny refuses whom no policy of level Network allows.
	AuthorizationDefaultDeny AuthorizationDefault = "Deny"
)

// Authorization of the mesh as a whole.
type Authorization struct {
	// Allow lets in whom no policy refuses; where there are ALLOW policies, one must match. Deny refuses everybody whom no
	// ALLOW policy of level Network lets in, at all pods in the mesh but the mesh's own proxies.
	// +optional
	// +kubebuilder:default=Allow
	Default AuthorizationDefault `json:"default,omitempty"`
}

// MTLSMode is whether captured pods accept plaintext.
//
// +kubebuilder:validation:Enum=Strict;Permissive
type MTLSMode string

const (
	// MTLSModeStrict refuses plaintext.
	MTLSModeStrict MTLSMode = "Strict"
	// MTLSModePermissive accepts plaintext beside mTLS.
	MTLSModePermissive MTLSMode = "Permissive"
)

// MTLS of captured pods.
type MTLS struct {
	// Whether captured pods accept plaintext. Permissive accepts both, for callers that aren't in the mesh yet.
	// Strict refuses it (the kubelet's probes still pass). Label "fairway.dev/mtls-mode: strict|permissive" of a
	// namespace or a pod overrides this, and an AuthenticationPolicy with mtls both. Captured pods always speak mTLS to
	// each other, in both modes (on one node, see node.sameNode).
	// +optional
	// +kubebuilder:default=Permissive
	Mode MTLSMode `json:"mode,omitempty"`
}

// CIDR is an IPv4 or IPv6 range.
//
// +kubebuilder:validation:MaxLength=43
// +kubebuilder:validation:XValidation:rule="isCIDR(self)",message="must be a CIDR, such as 10.244.0.0/16 or fd00:10:244::/56"
type CIDR string

// Network holds the address ranges of the mesh. Connections to any other address never enter a proxy.
type Network struct {
	// Ranges of pod addresses. Default: the ranges that Nodes report in spec.podCIDRs. Set them if the CNI assigns
	// addresses by itself.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	PodCIDRs []CIDR `json:"podCIDRs,omitempty"`

	// Ranges of Service addresses. Default: those of the cluster's ServiceCIDR objects. Set them if the cluster has none
	// (if that API is switched off).
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	ServiceCIDRs []CIDR `json:"serviceCIDRs,omitempty"`
}

// ExternalBackends says where hosts outside the cluster may be.
type ExternalBackends struct {
	// Private ranges that names of hosts outside may lead to, such as those of a data centre. All others are refused:
	// 10.0.0.0/8, 172.16.0.0/12, 192.168.0.0/16, 100.64.0.0/10, 198.18.0.0/15 and fc00::/7. Ranges of this cluster's pods
	// and Services, addresses of its nodes, loopback and link-local addresses are refused whatever is said here.
	// +optional
	// +listType=set
	// +kubebuilder:validation:MaxItems=64
	AllowedCIDRs []CIDR `json:"allowedCIDRs,omitempty"`
}

// LogLevel of a proxy (Envoy's names).
//
// +kubebuilder:validation:Enum=trace;debug;info;warning;error;critical;off
type LogLevel string

// SameNodeMode says how connections between captured pods of one node go.
//
// +kubebuilder:validation:Enum=MTLS;Direct
type SameNodeMode string

const (
	// SameNodeMTLS is as between nodes.
	SameNodeMTLS SameNodeMode = "MTLS"
	// SameNodeDirect passes the proxy once, without TLS.
	SameNodeDirect SameNodeMode = "Direct"
)

// Node sets up the pods that run on every node: the agent and the node proxy.
type Node struct {
	// Resources of the node proxy (Envoy).
	// +optional
	Resources *corev1.ResourceRequirements `json:"resources,omitempty"`

	// Resources of the agent.
	// +optional
	AgentResources *corev1.ResourceRequirements `json:"agentResources,omitempty"`

	// Log level of the node proxy. Default warning.
	// +optional
	LogLevel LogLevel `json:"logLevel,omitempty"`

	// Worker threads of the node proxy. Default 2.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=128
	Concurrency *int32 `json:"concurrency,omitempty"`

	// Nodes that get a node proxy, by their labels. Default: all. Enrolled pods on other nodes aren't captured.
	// +optional
	// +kubebuilder:validation:MaxProperties=16
	NodeSelector map[string]string `json:"nodeSelector,omitempty"`

	// Paths on the nodes, if they differ from the defaults: k3s, for example, has other CNI directories.
	// +optional
	Host *HostPaths `json:"host,omitempty"`

	// SELinux type of the node pods, where nodes enforce SELinux: the usual one of containers may not write to the host.
	// spc_t is that of privileged containers on many distributions. Default: the container runtime's.
	// +optional
	// +kubebuilder:validation:MaxLength=63
	// +kubebuilder:validation:Pattern=`^[a-z][a-z0-9_]*_t$`
	SELinuxType string `json:"seLinuxType,omitempty"`

	// How many different addresses (address and port) of pods and Services one pod may dial within an hour, in each IP
	// family. Default 4000. Connections to further addresses are refused: the node proxy keeps state for each address
	// that any pod dialled, and has room for 20000 in all, or 13000 of Services. A change resets the count.
	// +optional
	// +kubebuilder:validation:Minimum=100
	// +kubebuilder:validation:Maximum=20000
	AddressesPerPod *int32 `json:"addressesPerPod,omitempty"`

	// How many connections one address, such as another pod or a waypoint, may have open to one captured pod, mTLS and
	// plain text together. Default 2048. Further ones are refused, so that one caller can't use up the 16384 that a pod
	// accepts from all callers. The more a caller has open, the more its next one costs the node. A change resets the
	// count.
	// +optional
	// +kubebuilder:validation:Minimum=64
	// +kubebuilder:validation:Maximum=16384
	ConnectionsPerPeer *int32 `json:"connectionsPerPeer,omitempty"`

	// How long open connections live on at most when a node proxy is replaced, as in an upgrade, in whole seconds. The
	// next proxy takes all new ones as soon as it can, and the one before ends with its last connection, or when this time
	// is over. Default: 1h. Both take memory meanwhile. 0s: connections end with their proxy.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) <= duration('24h')",message="drainTimeout must be at most 24h"
	DrainTimeout *metav1.Duration `json:"drainTimeout,omitempty"`

	// How many node proxies may be replaced at the same time, as in an upgrade: a number, or a percentage of the nodes
	// such as "10%". Default: 1. Each node has two of them meanwhile.
	// +optional
	// +kubebuilder:validation:XIntOrString
	// +kubebuilder:validation:Pattern=`^([1-9][0-9]?|100)%$`
	// +kubebuilder:validation:XValidation:rule="type(self) != int || self >= 1",message="must be at least 1"
	MaxSurge *intstr.IntOrString `json:"maxSurge,omitempty"`

	// How connections between captured pods of one node go. MTLS: as between nodes, through their proxy twice. Direct:
	// through it once and without TLS, where all endpoints of what was dialled are pods of the node that no
	// AuthorizationPolicy guards; the bytes never leave the node's kernel. It takes a quarter of the CPU for a new
	// connection, but NetworkPolicies don't see such connections. Default MTLS. A change drains what pods have open to
	// others.
	// +optional
	SameNode SameNodeMode `json:"sameNode,omitempty"`

	// Tolerations of the node pods. Default: all taints, because pods can only be captured on nodes where these run.
	// +optional
	// +listType=atomic
	// +kubebuilder:validation:MaxItems=32
	Tolerations []corev1.Toleration `json:"tolerations,omitempty"`
}

// HostPath is an absolute path on the nodes.
//
// +kubebuilder:validation:MaxLength=255
// +kubebuilder:validation:Pattern=`^(/[^/:]+)+$`
// +kubebuilder:validation:XValidation:rule="!self.contains('..')",message="must be an absolute path without '..'"
type HostPath string

// HostPaths are where a node's container runtime keeps what the agent needs. They apply to all nodes.
type HostPaths struct {
	// Socket of the container runtime (CRI). Default: the first one that answers of containerd
	// (/run/containerd/containerd.sock), k3s (/run/k3s/containerd/containerd.sock) and CRI-O (/run/crio/crio.sock).
	// +optional
	// +kubebuilder:validation:XValidation:rule="self.split('/').size() > 2",message="must be in a directory other than /"
	RuntimeSocket HostPath `json:"runtimeSocket,omitempty"`

	// Directory of the CNI plugins. Default /opt/cni/bin.
	// +optional
	CNIBinDir HostPath `json:"cniBinDir,omitempty"`

	// Directory of the CNI configuration. Default /etc/cni/net.d.
	// +optional
	CNIConfDir HostPath `json:"cniConfDir,omitempty"`

	// Directory of the pods' network namespaces. Default /var/run/netns.
	// +optional
	NetnsDir HostPath `json:"netnsDir,omitempty"`
}

// AccessLogMode is what the proxies log.
//
// +kubebuilder:validation:Enum=Off;Errors;All
type AccessLogMode string

const (
	// AccessLogOff logs nothing.
	AccessLogOff AccessLogMode = "Off"
	// AccessLogErrors logs connections and requests that failed.
	AccessLogErrors AccessLogMode = "Errors"
	// AccessLogAll logs every connection and request.
	AccessLogAll AccessLogMode = "All"
)

// AccessLog of node proxies and waypoints: a line of JSON on standard output, with the identity of both ends.
type AccessLog struct {
	// What is logged: All connections and requests, only those with Errors, or none (Off). A change takes effect at once
	// and interrupts nothing.
	// +optional
	// +kubebuilder:default=All
	Mode AccessLogMode `json:"mode,omitempty"`
}

// MeshStatus is the observed state of the mesh.
type MeshStatus struct {
	// Generation of the spec that this status is about.
	// +optional
	ObservedGeneration int64 `json:"observedGeneration,omitempty"`

	// Ready summarizes the others. Accepted: the spec is valid. NetworkReady: the ranges to capture are known.
	// CertificatesReady: there is a CA to sign with, or SPIRE gives identities. CertificatesRenewed: nothing that was
	// issued fails to be renewed; while all of it is valid, this one doesn't count for Ready. NodesReady: every node's
	// proxy is ready. AddressesReady: no pod claims an address that it can't have. GatewayAPIReady: the Gateway API's
	// CRDs are installed.
	// +optional
	// +listType=map
	// +listMapKey=type
	// +kubebuilder:validation:MaxItems=16
	Conditions []metav1.Condition `json:"conditions,omitempty"`

	// Ranges whose traffic is captured: those of spec.network, or those found in the cluster.
	// +optional
	Network *NetworkStatus `json:"network,omitempty"`

	// Nodes and what they capture.
	// +optional
	Nodes *NodesStatus `json:"nodes,omitempty"`
}

// NetworkStatus holds the effective ranges: what agents program into each pod.
type NetworkStatus struct {
	// Ranges of pod addresses.
	// +optional
	// +listType=atomic
	PodCIDRs []string `json:"podCIDRs,omitempty"`

	// Ranges of Service addresses.
	// +optional
	// +listType=atomic
	ServiceCIDRs []string `json:"serviceCIDRs,omitempty"`
}

// NodesStatus counts nodes and captured pods.
type NodesStatus struct {
	// Nodes that should run a node proxy.
	Desired int32 `json:"desired"`

	// Nodes whose node proxy is ready.
	Ready int32 `json:"ready"`

	// Pods that are captured, on all nodes.
	CapturedPods int32 `json:"capturedPods"`

	// "ready/desired", for printing.
	// +optional
	Summary string `json:"summary,omitempty"`
}
