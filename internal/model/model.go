// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package model says what the mesh is, in its own words: services, endpoints, routes and waypoints as ingest has
// decided them and as translate turns them into Envoy resources. Values are immutable once built. The package imports
// neither Kubernetes API machinery (beyond plain names) nor Envoy.
package model

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"k8s.io/apimachinery/pkg/types"
)

// Protocol is what a Service's port speaks.
type Protocol string

// Protocols of a port.
const (
	ProtocolTCP   Protocol = "TCP"
	ProtocolTLS   Protocol = "TLS" // TCP that starts with a TLS handshake between client and application
	ProtocolHTTP  Protocol = "HTTP"
	ProtocolHTTP2 Protocol = "HTTP2" // h2c with prior knowledge, gRPC included
	// ProtocolUndeclared is what a Service says of a port that is HTTP where a route of its own namespace attaches, and
	// TCP otherwise. What proxies go by is one of the others: ingest has decided.
	ProtocolUndeclared Protocol = "Undeclared"
)

// HTTP tells whether the protocol is a version of HTTP.
func (p Protocol) HTTP() bool { return p == ProtocolHTTP || p == ProtocolHTTP2 }

// Opaque tells whether the protocol is known to be something that no proxy reads.
func (p Protocol) Opaque() bool { return p == ProtocolTCP || p == ProtocolTLS }

// ServicePort identifies a port of a Service.
type ServicePort struct {
	Namespace, Service string
	Port               uint16
}

// ServiceName is the Service that the port belongs to.
func (p ServicePort) ServiceName() types.NamespacedName {
	return types.NamespacedName{Namespace: p.Namespace, Name: p.Service}
}

// Compare orders by namespace, service and port.
func (p ServicePort) Compare(o ServicePort) int {
	return cmp.Or(cmp.Compare(p.Namespace, o.Namespace), cmp.Compare(p.Service, o.Service), cmp.Compare(p.Port, o.Port))
}

// Service is a Kubernetes Service as the mesh sees it.
type Service struct {
	Name     types.NamespacedName
	VIPs     []netip.Addr // empty for headless and ExternalName Services
	Ports    []Port       // TCP ports, by number
	Enrolled bool         // its namespace is in the mesh
	External bool         // of type ExternalName: a name for a host, without endpoints
	ClientIP bool         // connections of one client address go to one endpoint (sessionAffinity)
	Local    bool         // connections stay on the caller's node (internalTrafficPolicy)
}

// Port finds a port by its number.
func (s *Service) Port(number uint16) (Port, bool) {
	if n, found := slices.BinarySearchFunc(s.Ports, number, func(p Port, number uint16) int {
		return cmp.Compare(p.Number, number)
	}); found {
		return s.Ports[n], true
	}
	return Port{}, false
}

// Attachment is one of its ports, as what routes attach to.
func (s *Service) Attachment(p Port) Attachment {
	return Attachment{Port: ServicePort{Namespace: s.Name.Namespace, Service: s.Name.Name, Port: p.Number}}
}

// Port is one TCP port of a Service.
type Port struct {
	Number   uint16
	Name     string
	Protocol Protocol // as declared
}

// Upstream is a Service's port as waypoints send traffic to it.
type Upstream struct {
	ServicePort
	Protocol Protocol
	ClientIP bool
	// Identities that its endpoints in the mesh have, sorted.
	Identities []string
	// Sending is as its owner's policies have it.
	Sending
	// TLS that requests are sent in, as its owner's BackendTLSPolicy has it; nil: in what the application takes as it is.
	TLS *BackendTLS
}

// Workload is a pod as the mesh sees it.
type Workload struct {
	Identity string // SPIFFE ID of its service account; empty: it has none
	// MTLS: the pod is enrolled and captured, so it takes mTLS on its own addresses.
	MTLS bool
	// Closed: some pod claims the address that can't have it, and nothing may go there. Nothing else is set.
	Closed bool
}

// Endpoint is one address behind a port of a Service.
type Endpoint struct {
	Address  netip.AddrPort // where the application listens
	Identity string         // SPIFFE ID that must be presented; set where mTLS is
	Node     string
	Zone     string
	// ForNodes and ForZones are the hints which callers the endpoint is meant for (trafficDistribution).
	ForNodes, ForZones []string
	// Callers are the namespaces whose callers the endpoint is for, and nobody else; nil: for all others.
	Callers []string
	MTLS    bool // reached through mTLS at Address.Addr():15008
	// Draining endpoints are terminating yet still serve; they take traffic only when nothing else is left.
	Draining bool
	// Absent: there is no such endpoint, and callers that it would be for are refused.
	Absent bool
	// Distance from the node for whose proxy the endpoint is listed; 0 is the nearest. Farther ones take traffic only when
	// nothing nearer is left.
	Distance uint8
}

// Waypoint is the L7 proxy of a namespace.
type Waypoint struct {
	Name     types.NamespacedName // of the Gateway
	Identity string               // SPIFFE ID of its pods
	// Listen on the wildcard address of each family that its own Service has, IPv4 first; empty until there is one.
	Listen []netip.Addr
	// Ports of every Service bound to it, sorted by namespace, service, port.
	Ports []ServedPort
	// Backends are the ports that requests are sent to, those of Ports included that are HTTP, sorted likewise.
	Backends []ServicePort
	// Consumed are those of the Backends that are of other namespaces, and that only routes of other namespaces lead to,
	// sorted: the waypoint's owner has never said that it goes there.
	Consumed []ServicePort
	// Externals are the hosts outside the cluster that requests are sent to, by the names of their XBackends, sorted.
	Externals []types.NamespacedName
	// Tunnels: it speaks TLS with the application of some backend.
	Tunnels bool
	Headers HeaderLimits
}

// Port finds one of the ports that it serves.
func (w *Waypoint) Port(port ServicePort) (ServedPort, bool) {
	n, found := slices.BinarySearchFunc(w.Ports, port, func(p ServedPort, port ServicePort) int { return p.Compare(port) })
	if !found {
		return ServedPort{}, false
	}
	return w.Ports[n], true
}

// ServedPort is a port of a Service as its waypoint serves it: as HTTP and nothing else, or passed on as it is.
type ServedPort struct {
	ServicePort
	Protocol Protocol
}

// HeaderLimits is what a waypoint takes as the headers of one request or answer.
type HeaderLimits struct {
	KiB, Count uint32
}

// ObjectRef names the object that something in the model came from.
type ObjectRef struct {
	Kind      string // HTTPRoute or GRPCRoute
	Namespace string
	Name      string
}

// RouteTable holds everything that is done with the requests that come to an Attachment.
type RouteTable struct {
	Attachment
	Protocol Protocol
	// Callers hold the rules for callers of one namespace (consumer routes); they replace Default for those callers.
	// Sorted by namespace.
	Callers []CallerRules
	// Default holds the producer routes' rules in order of precedence. Nil means: no route, go to the Service itself.
	// Where routes exist and no rule matches, the answer is 404.
	Default []*Rule
	// Guards of requests that no rule takes elsewhere: all of them must let a request pass.
	Guards []Guard
	// TLS: such requests leave in TLS; see Upstream.
	TLS bool
	// Requests is as the owner's TrafficPolicy has it, for the requests of all rules.
	Requests Requests
	// Session of requests that no rule takes elsewhere.
	Session *SessionPersistence
}

// CallerRules are rules for callers whose SPIFFE ID is in a namespace.
type CallerRules struct {
	Namespace string
	Rules     []*Rule
}

// Rule is one match of one rule of a route, flattened, with what happens to the request.
type Rule struct {
	Source    ObjectRef
	RuleName  string // HTTPRouteRule.name, GEP-995
	RuleIndex int
	GRPC      bool
	Match     Match
	// Invalid: the rule can't be carried out, and what it matches is answered with an error. Nothing below is set.
	Invalid bool
	// Filters in the order in which they apply.
	Filters  []Filter
	Backends []Backend
	// Timeout of the whole request and of one try; nil: none set. Zero: disabled.
	RequestTimeout, BackendTimeout *time.Duration
	Retry                          *Retry
	SessionPersistence             *SessionPersistence
}

// Label names the rule in its route: its name, or its index where it has none.
func (r Rule) Label() string { return ruleLabel(r.RuleName, r.RuleIndex) }

// MatchType tells how a string is compared.
type MatchType string

// Kinds of comparison.
const (
	MatchExact  MatchType = "Exact"
	MatchPrefix MatchType = "Prefix" // by path element
	MatchRegex  MatchType = "Regex"  // RE2, whole string
)

// Match is a conjunction.
type Match struct {
	Path    *StringMatch // nil: any
	Method  string       // "": any
	Headers []NamedMatch
	Query   []NamedMatch
	// GRPCService and GRPCMethod are set by GRPCRoutes; "" matches any.
	GRPCService, GRPCMethod string
	GRPCType                MatchType
}

// StringMatch compares a string.
type StringMatch struct {
	Type  MatchType
	Value string
}

// NamedMatch compares a header or a query parameter.
type NamedMatch struct {
	Name string
	StringMatch
}

// Filter changes a request or its response; exactly one field is set.
type Filter struct {
	RequestHeaders  *HeaderChange
	ResponseHeaders *HeaderChange
	Redirect        *Redirect
	Rewrite         *Rewrite
	Mirror          *Mirror
	CORS            *CORS
	ExternalAuth    *ExternalAuth
	Extension       *Extension
}

// HeaderChange sets, adds and removes headers, in that order.
type HeaderChange struct {
	Set, Add []Header
	Remove   []string
}

// Header is a name and its value.
type Header struct{ Name, Value string }

// PathChange replaces the whole path or the matched prefix; exactly one field is set.
type PathChange struct {
	Full   *string
	Prefix *string
}

// Redirect answers with a redirect; empty fields keep what the request had.
type Redirect struct {
	Scheme, Hostname string
	Path             *PathChange
	Port             uint16
	StatusCode       int
}

// Rewrite changes host and path of the request.
type Rewrite struct {
	Hostname string
	Path     *PathChange
}

// Mirror sends a copy of Numerator/Denominator of the requests to a backend and ignores the answer.
type Mirror struct {
	Backend                Backend
	Numerator, Denominator uint32
}

// CORS as of GEP-1767.
type CORS struct {
	AllowOrigins, AllowMethods, AllowHeaders, ExposeHeaders []string
	AllowCredentials                                        bool
	MaxAge                                                  time.Duration
}

// Backend is where a rule sends its share of the requests: a port of a Service, or a host outside the cluster.
type Backend struct {
	Port ServicePort
	// External is set in place of Port.
	External *ExternalHost
	Weight   uint32
	// Invalid backends answer 500 for their share, as Gateway API demands.
	Invalid bool
	// TLS: requests leave in TLS; see Upstream.
	TLS     bool
	Filters []Filter // header changes only
	// Guards of the requests that the rule sends there, those of mirrors included: all of them must let a request pass.
	Guards []Guard
	// Session is as the backend's owner has it, for rules that have none of their own.
	Session *SessionPersistence
}

// MaxRetries bounds what a route can make of one request.
const MaxRetries = 100

// Retry as of GEP-1731.
type Retry struct {
	Codes    []uint32
	Attempts int           // tries beyond the first; 1 to MaxRetries
	Backoff  time.Duration // minimum between tries; 0: Envoy's default
}

// SessionPersistence as of GEP-1619.
type SessionPersistence struct {
	Name   string // "": the implementation's
	Header bool   // else a cookie
	// CookieLifetime of a permanent cookie; zero: until the client ends its session.
	CookieLifetime time.Duration
}

// DestinationKind tells what stands behind an address that a captured pod dials.
type DestinationKind string

// Kinds of destination.
const (
	// DestinationService: the endpoints of a Service's port.
	DestinationService DestinationKind = "Service"
	// DestinationWaypoint: the pods of the waypoint that serves the Service.
	DestinationWaypoint DestinationKind = "Waypoint"
	// DestinationWorkload: one pod that takes mTLS.
	DestinationWorkload DestinationKind = "Workload"
	// DestinationPassthrough: plain TCP to the dialled address itself.
	DestinationPassthrough DestinationKind = "Passthrough"
	// DestinationRefused: fail closed, for example a Service whose waypoint is absent.
	DestinationRefused DestinationKind = "Refused"
)

// Destination is the answer to: a captured pod dials this address, where does the connection go?
type Destination struct {
	Address netip.AddrPort
	Kind    DestinationKind
	// Port names the endpoints: of the Service, or of the waypoint's own Service.
	Port ServicePort
	// Service is the port of the Service that a waypoint is asked for.
	Service ServicePort
	// IPv6 is the family of those endpoints. The receiver connects to the application with the caller's address, so a
	// connection stays in the family in which it was dialled.
	IPv6 bool
	// Identities that may answer, sorted (SPIFFE IDs).
	Identities []string
	// ClientIP: connections of one client address go to one endpoint.
	ClientIP bool
	// Callers are the namespaces whose callers go to a waypoint of the identity Waypoint, while all others go to a
	// DestinationService's own endpoints.
	Callers  []string
	Waypoint string
	// Reason a DestinationRefused is refused, for people.
	Reason string
}
