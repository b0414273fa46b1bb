// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package names is the one place where every label, port, mark, path, resource name and identity of the mesh is
// spelled, so that two components can never disagree about one.
package names

import (
	"fmt"
	"hash/fnv"
	"strconv"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Domain prefixes every label, annotation and API group of the project.
const Domain = "fairway.dev"

// Labels and annotations that users write.
const (
	// LabelMesh enrols a namespace (MeshEnabled) and lets a pod opt out (MeshDisabled).
	LabelMesh = Domain + "/mesh"
	// MeshEnabled is the value of LabelMesh that enrols.
	MeshEnabled = "enabled"
	// MeshDisabled is the value of LabelMesh that opts out.
	MeshDisabled = "disabled"
	// LabelUseWaypoint names the waypoint of a namespace or Service; see UseWaypointAuto and UseWaypointNone.
	LabelUseWaypoint = Domain + "/use-waypoint"
	// UseWaypointAuto (the default) makes a waypoint appear once a route or L7 policy targets a Service.
	UseWaypointAuto = "auto"
	// UseWaypointNone takes a Service or namespace off every waypoint.
	UseWaypointNone = "none"
	// LabelMTLSMode overrides Mesh.spec.mtls.mode for a namespace or a pod: MTLSStrict or MTLSPermissive.
	LabelMTLSMode = Domain + "/mtls-mode"
	// MTLSStrict refuses plaintext.
	MTLSStrict = "strict"
	// MTLSPermissive accepts plaintext beside mTLS.
	MTLSPermissive = "permissive"
	// LabelOutbound overrides Mesh.spec.outbound for a namespace or a pod: OutboundAllow or OutboundDeny.
	LabelOutbound = Domain + "/outbound"
	// OutboundAllow lets a pod send to addresses outside of the mesh's ranges.
	OutboundAllow = "allow"
	// OutboundDeny keeps it from them.
	OutboundDeny = "deny"
)

// Labels that the operator writes.
const (
	// LabelManagedBy and its value mark what the operator owns.
	LabelManagedBy = "app.kubernetes.io/managed-by"
	// ManagedBy is the value of LabelManagedBy, and the field manager of server-side apply.
	ManagedBy = "fairway-operator"
	// LabelGatewayName is the Gateway API's own label for generated infrastructure (GEP-1762).
	LabelGatewayName = "gateway.networking.k8s.io/gateway-name"
	// LabelComponent tells operator, node and waypoint pods apart.
	LabelComponent = "app.kubernetes.io/component"
	// ComponentOperator, ComponentNode and ComponentWaypoint are the values of LabelComponent.
	ComponentOperator = "operator"
	ComponentNode     = "node"
	ComponentWaypoint = "waypoint"
	// ComponentNodeDraining is the value that the pod of a node proxy gives itself when it ends, so that the DaemonSet
	// makes the next one without waiting for its last connection.
	ComponentNodeDraining = "node-draining"
	// LabelAutomatic marks a waypoint Gateway that the operator created by itself.
	LabelAutomatic = Domain + "/automatic"
)

// AnnotationMirror marks the mirror of a static pod, which a node's kubelet makes by itself
// (corev1.MirrorPodAnnotationKey).
const AnnotationMirror = "kubernetes.io/config.mirror"

// AnnotationStatic is the UID by which kubelet and the runtime know a static pod; its mirror in the API has another.
const AnnotationStatic = "kubernetes.io/config.hash"

// Controllers, classes and objects.
const (
	// GatewayController is GatewayClass.spec.controllerName of every class of ours.
	GatewayController = Domain + "/gateway-controller"
	// MeshController is XMesh.spec.controllerName and the controllerName in route statuses.
	MeshController = Domain + "/mesh-controller"
	// ProtocolMTLS is the protocol of a waypoint's listener.
	ProtocolMTLS = Domain + "/MTLS"
	// WaypointClass is the GatewayClass of waypoints.
	WaypointClass = "fairway-waypoint"
	// AutomaticWaypoint is the name of the Gateway of an automatic waypoint.
	AutomaticWaypoint = "fairway-waypoint"
	// SystemNamespace is where operator and agents run unless told otherwise.
	SystemNamespace = "fairway-system"
	// AgentPolicy limits what agents may write of pods; LabelPolicy refuses values of the mesh's labels that mean nothing.
	AgentPolicy = "fairway-agents"
	LabelPolicy = "fairway-labels"
	// Mesh is the name of the one Mesh object.
	Mesh = "default"
	// OperatorService is the Service of the operator's xDS and certificate ports.
	OperatorService = "fairway-operator"
	// OperatorDeployment is the Deployment of the operator.
	OperatorDeployment = "fairway-operator"
	// OperatorServiceAccount is the operator's identity.
	OperatorServiceAccount = "fairway-operator"
	// NodeDaemonSet is the name of the DaemonSet of agent and node proxy.
	NodeDaemonSet = "fairway-node"
	// NodeServiceAccount is the agent's identity on every node.
	NodeServiceAccount = "fairway-node"
	// CASecret holds the mesh CA (tls.crt, tls.key, ca.crt) in the system namespace.
	CASecret = "fairway-ca"
	// IssuedCA names the cert-manager Certificate, and the Secret into which cert-manager puts the intermediate CA.
	IssuedCA = "fairway-ca-issued"
	// LabelReplica names the operator's pod that made a CertificateRequest, AnnotationIdentity whose certificate it is
	// for.
	LabelReplica       = Domain + "/replica"
	AnnotationIdentity = Domain + "/identity"
	// SPIREDriver is SPIFFE's CSI driver.
	SPIREDriver = "csi.spiffe.io"
	// TrustBundleConfigMap holds the public trust bundle (key TrustBundleKey) for agents to verify the operator with.
	TrustBundleConfigMap = "fairway-trust-bundle"
	// TrustBundleKey is the key of the PEM bundle in TrustBundleConfigMap.
	TrustBundleKey = "ca.crt"
	// TokenAudience is the audience of the projected token with which a proxy's agent authenticates to the operator.
	TokenAudience = Domain
)

// Images that the manifests use.
const (
	// Image is the product's own image.
	Image = Domain + "/fairway:" + Version
	// EnvoyImage is stock Envoy.
	EnvoyImage = "envoyproxy/envoy:distroless-v1.40.0"
	// Version of this build's manifests.
	Version = "v0.1.0"
)

// Ports of the data plane and of the control plane.
const (
	PortOutbound        = 15001 // captured outbound connections, in the pod's netns
	PortInbound         = 15006 // captured inbound plaintext, in the pod's netns
	PortMTLS            = 15008 // mTLS, one connection for one connection
	PortAgent           = 15020 // waypoint's agent: health, readiness and metrics
	PortMetrics         = 15021 // node's agent: merged metrics over TLS, for those who may read them
	PortAdmin           = 15000 // loopback only: read-only introspection of agent and operator
	PortXDS             = 15010 // operator: delta ADS over TLS
	PortCertificates    = 15012 // operator: certificate signing and node reports over TLS
	PortPeers           = 15014 // operator: acknowledgements for its other replicas, mutual TLS
	PortOperatorHealth  = 8081
	PortOperatorMetrics = 8443 // over TLS, for those who may read them
	// SO_MARK that agents of earlier versions expect in clusters; others put their node's there
	MarkProxy            = 0x539
	ProbeSourceAddress   = "169.254.77.1"
	DefaultTrustDomain   = "cluster.local"
	DefaultClusterDomain = "cluster.local"
)

// Paths inside the agent's and the proxies' containers.
const (
	// RunDir is the pod's own, NodeDir the node's: all its agents share that.
	RunDir          = "/run/fairway-proxy"
	NodeDir         = "/run/fairway"
	XDSSocket       = RunDir + "/xds.sock"
	AdminSocket     = RunDir + "/admin.sock"
	CNISocket       = NodeDir + "/cni.sock"
	KeysSocket      = RunDir + "/keys.sock"
	FetchSocket     = RunDir + "/fetch.sock"
	TokenPath       = "/var/run/secrets/fairway/token"
	TrustBundlePath = "/var/run/fairway-trust/" + TrustBundleKey
	// SPIREDir is where SPIFFE's CSI driver mounts the socket of the Workload API.
	SPIREDir      = "/spiffe-workload-api"
	BootstrapPath = RunDir + "/envoy.yaml"
	MarkPath      = NodeDir + "/mark"
	NetnsDir      = "/var/run/netns"
	ResolvConf    = "/etc/resolv.conf"
	CNIBinDir     = "/opt/cni/bin"
	CNIConfDir    = "/etc/cni/net.d"
	CNIPlugin     = "fairway-cni"
)

// Names of what a proxy tells its agent (access log service): of callers, to be counted, and of the connections to pods
// that are open, in mTLS and in plain text.
const (
	LogCallers   = "agent"
	LogMTLS      = "mtls"
	LogPlaintext = "plaintext"
)

// ResetsSocket is abstract, so that each pod's network namespace has one of its own: there a waypoint has the agent of
// its node reset connections.
const ResetsSocket = "@fairway-resets"

// ClusterXDS is the static cluster of every proxy that leads to its agent.
const ClusterXDS = "xds"

// Filter-state keys and metadata namespaces of the data path.
const (
	// FilterStateSource carries the caller's SPIFFE ID inside a waypoint.
	FilterStateSource = "fairway.source"
	// FilterStateSourceIP carries the caller's IP address inside a waypoint.
	FilterStateSourceIP = "fairway.source_ip"
	// FilterAuthorization and FilterAuthorizationCEL are filters, in clusters of waypoints, that tables configure with who
	// may ask for what: one refuses, the other asks the policies that allow by expressions.
	FilterAuthorization    = "fairway.authorization"
	FilterAuthorizationCEL = "fairway.authorization_cel"
	// FilterStateVerdict is empty where a caller is let in, and says else who refuses; FilterStateDryRun is what it would
	// be with the policies that are tried only.
	FilterStateVerdict = "fairway.verdict"
	FilterStateDryRun  = "fairway.dryrun"
	// FilterStateTarget is the address that a connection leads to if it is let in.
	FilterStateTarget = "fairway.target"
	// FilterStatePod is "namespace/name" of the pod that a connection came to.
	FilterStatePod = "fairway.pod"
	// FilterStateNeighbour is the address of the application that a connection leads to without mTLS, for that is on the
	// same node; FilterStateDestination who that is.
	FilterStateNeighbour   = "fairway.neighbour"
	FilterStateDestination = "fairway.destination"
	// FilterStateTurn is a random text that says which of several neighbours has a connection.
	FilterStateTurn = "fairway.turn"
	// MetadataEndpoint is the endpoint metadata namespace that a waypoint's access log reads.
	MetadataEndpoint = "fairway.endpoint"
	// MetadataTarget is the address that the application is dialled at.
	MetadataTarget = "target"
	// MetadataTunnel is the namespace of what ListenerTunnel reads of an endpoint: the address to connect to, the server
	// name to ask for (a port), and, as MetadataIdentity, who must answer.
	MetadataTunnel        = "fairway.tunnel"
	MetadataTunnelAddress = "address"
	MetadataTunnelServer  = "server"
	// MetadataIdentity is the SPIFFE ID that an endpoint must present on its mTLS connection.
	MetadataIdentity = "identity"
	// MetadataNear is the endpoint metadata namespace of whom an endpoint is near to, nodes and zones, which a waypoint's
	// agent turns into an order; Envoy never has it.
	MetadataNear      = "fairway.near"
	MetadataNearNodes = "nodes"
	MetadataNearZones = "zones"
	// TrustBundleSecret is the SDS name of the validation context.
	TrustBundleSecret = "trust-bundle"
)

// HeaderNode and HeaderZone are what the operator tells an agent by the header of its stream: where its proxy runs.
const (
	HeaderNode = "fairway-node"
	HeaderZone = "fairway-zone"
)

// ModuleMark is a header between two filters of a waypoint: of the value ModuleUnmarked until a module of an
// HTTPExtension has said that it is there. It has as many bytes as one number in a memory.
const (
	ModuleMark     = ":started"
	ModuleUnmarked = "no"
)

// ListenerMTLS and the other fixed xDS resource names.
const (
	ListenerMTLS = "mtls"
	// ListenerTrial and RouteTrial are where a waypoint's proxies are shown rules that some table was rejected for.
	// Nothing leads there.
	ListenerTrial = "trial"
	RouteTrial    = "trial"
	// ListenerTunnel and ClusterTunnel carry what is TLS with an application already through the mesh's mTLS.
	ListenerTunnel = "tunnel"
	ClusterTunnel  = "tunnel"
	// AmbiguousRoutes is how the names of a waypoint's routes begin that refuse what only some servers take for
	// a rule's path or method; which, is said behind it.
	AmbiguousRoutes = "ambiguous/"
	// FilterExternal is the filter of a waypoint that tables tell which host outside the cluster a request goes to.
	FilterExternal = "fairway.external"
	// Neighbours is the filter of captured pods' outbound listeners that says which addresses lead to a pod of their node.
	Neighbours = "neighbours"
	// RuntimeLayer holds what of a proxy's behaviour may change without a new listener.
	RuntimeLayer = "fairway"
)

// ServicePort names scope, route configuration and cluster of a Service's port.
func ServicePort(namespace, service string, port uint16) string {
	return "service/" + namespace + "/" + service + "/" + strconv.Itoa(int(port)) // for each port of a waypoint, at a time
}

// ServerName is what a waypoint is asked for in the handshake (SNI): a port of a Service.
func ServerName(namespace, service string, port uint16) string {
	return fmt.Sprintf("%d.%s.%s", port, service, namespace)
}

// PrefixTLS begins the names of clusters that speak TLS with applications, PrefixTLSEndpoints those of their load
// assignments.
const (
	PrefixTLS          = "tls"
	PrefixTLSEndpoints = "waypoint-tls"
)

// TLSPort is the waypoint's cluster that requests to a port go to whose application is spoken TLS with. It has another
// name than that without TLS, so that where proxies reject it, requests are refused and never go out in plain text.
func TLSPort(namespace, service string, port uint16) string {
	return fmt.Sprintf("%s/%s/%s/%d", PrefixTLS, namespace, service, port)
}

// RequestsTo is the waypoint's cluster that requests to a port go to.
func RequestsTo(namespace, service string, port uint16, tls bool) string {
	if tls {
		return TLSPort(namespace, service, port)
	}
	return ServicePort(namespace, service, port)
}

// PrefixExternal begins the names of clusters of hosts outside the cluster.
const PrefixExternal = "external"

// External is the waypoint's cluster of a host outside the cluster, as its XBackend asked for it at one time. Where
// proxies reject what it asks for now, requests find nothing, and never what it asked for before.
func External(namespace, name, version string) string {
	return PrefixExternal + "/" + namespace + "/" + name + "/" + version
}

// ParseExternal is the inverse of External.
func ParseExternal(cluster string) (namespace, name, version string, ok bool) {
	p := strings.Split(cluster, "/")
	if len(p) != 4 || p[0] != PrefixExternal || p[1] == "" || p[2] == "" {
		return "", "", "", false
	}
	return p[1], p[2], p[3], true
}

// TLSEndpoints names the load assignment of a Service's port as waypoints see it that speak TLS with it.
func TLSEndpoints(namespace, service string, port uint16) string {
	return fmt.Sprintf("%s/%s/%s/%d", PrefixTLSEndpoints, namespace, service, port)
}

// PrefixInboundCluster is how the name of an InboundCluster begins; a server name follows.
const PrefixInboundCluster = "inbound/"

// InboundCluster is the waypoint's cluster that connections to a port go to which are passed on as they are.
func InboundCluster(namespace, service string, port uint16) string {
	return PrefixInboundCluster + ServerName(namespace, service, port)
}

// ParseInboundCluster is the inverse of InboundCluster.
func ParseInboundCluster(name string) (namespace, service string, port uint16, ok bool) {
	serverName, found := strings.CutPrefix(name, PrefixInboundCluster)
	p := strings.Split(serverName, ".")
	if !found || len(p) != 3 || p[1] == "" || p[2] == "" {
		return "", "", 0, false
	}
	n, err := strconv.ParseUint(p[0], 10, 16)
	return p[2], p[1], uint16(n), err == nil
}

// WaypointEndpoints names the load assignment of a Service's port as waypoints see it.
func WaypointEndpoints(namespace, service string, port uint16) string {
	return fmt.Sprintf("waypoint/%s/%s/%d", namespace, service, port)
}

// NodeEndpoints names the load assignment of a Service's port as node proxies see it: its endpoints of one address
// family.
func NodeEndpoints(namespace, service string, port uint16, ipv6 bool) string {
	if ipv6 {
		return fmt.Sprintf("node6/%s/%s/%d", namespace, service, port)
	}
	return fmt.Sprintf("node/%s/%s/%d", namespace, service, port)
}

// ParseNodeEndpoints is the inverse of NodeEndpoints.
func ParseNodeEndpoints(name string) (namespace, service string, port uint16, ipv6, ok bool) {
	if namespace, service, port, ok = ParseServicePort(name, "node"); ok {
		return namespace, service, port, false, true
	}
	namespace, service, port, ok = ParseServicePort(name, "node6")
	return namespace, service, port, true, ok
}

// CallerEndpoints names the load assignment of a Service's port as node proxies see it where only callers of some
// namespaces go to the waypoint. A different list of them gives a different name: a proxy that switches to it waits for
// its contents.
func CallerEndpoints(namespace, service string, port uint16, ipv6 bool, callers []string) string {
	list := fnv.New64a()
	_, _ = list.Write([]byte(strings.Join(callers, "/"))) // never fails
	return fmt.Sprintf("%s/%s/%x", prefixCallers, NodeEndpoints(namespace, service, port, ipv6), list.Sum64())
}

// ParseCallerEndpoints is the inverse of CallerEndpoints, but for the callers.
func ParseCallerEndpoints(name string) (namespace, service string, port uint16, ipv6, ok bool) {
	rest, found := strings.CutPrefix(name, prefixCallers+"/")
	last := strings.LastIndex(rest, "/")
	if !found || last < 0 {
		return "", "", 0, false, false
	}
	return ParseNodeEndpoints(rest[:last])
}

const prefixCallers = "callers"

// SPIFFEID is the identity of a service account (SPIFFE X.509-SVID, URI SAN).
func SPIFFEID(trustDomain, namespace, serviceAccount string) string {
	return "spiffe://" + trustDomain + "/ns/" + namespace + "/sa/" + serviceAccount
}

// SPIFFENamespace is what the SPIFFE IDs of a namespace begin with, given one of them.
func SPIFFENamespace(id string) string {
	trustDomain, namespace, _, _ := ParseSPIFFEID(id)
	return SPIFFEID(trustDomain, namespace, "")
}

// ParseSPIFFEID takes a SPIFFE ID of the mesh apart; ok is false for any other string.
func ParseSPIFFEID(id string) (trustDomain, namespace, serviceAccount string, ok bool) {
	parsed, err := spiffeid.FromString(id)
	if err != nil {
		return "", "", "", false
	}
	p := strings.Split(parsed.Path(), "/")
	if len(p) != 5 || p[1] != "ns" || p[3] != "sa" {
		return "", "", "", false
	}
	return parsed.TrustDomain().Name(), p[2], p[4], true
}

// WaypointResource names the ServiceAccount, Deployment, Service, HPA and PDB of a waypoint after its Gateway.
func WaypointResource(gateway string) string { return gateway }

// WaypointGateway is the inverse of WaypointResource.
func WaypointGateway(resource string) string { return resource }

// ParseServicePort is the inverse of ServicePort and WaypointEndpoints for the given first element of the
// name.
func ParseServicePort(name, prefix string) (namespace, service string, port uint16, ok bool) {
	p := strings.Split(name, "/")
	if len(p) != 4 || p[0] != prefix || p[1] == "" || p[2] == "" {
		return "", "", 0, false
	}
	n, err := strconv.ParseUint(p[3], 10, 16)
	return p[1], p[2], uint16(n), err == nil
}

// RuntimeSockets are where container runtimes answer: containerd, k3s, CRI-O.
func RuntimeSockets() []string {
	return []string{"/run/containerd/containerd.sock", "/run/k3s/containerd/containerd.sock", "/run/crio/crio.sock"}
}
