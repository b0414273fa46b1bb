// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package envoy holds the small pieces of Envoy configuration that more than one translator needs (Any, addresses, TLS
// contexts, limits of peers, filter state, access logs), so that node proxies and waypoints agree on how mTLS is
// spoken. It knows Envoy's API and nothing of the mesh's model.
package envoy

import (
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	lbcommonv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/common/v3"
	leastrequestv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/least_request/v3"
	maglevv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/maglev/v3"
	ringhashv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/ring_hash/v3"
	subsetv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/load_balancing_policies/subset/v3"
	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// Any packs a message deterministically, so that equal configuration is equal bytes. A message that can't be
// marshalled (a string that is not UTF-8) becomes an Any of an unknown type: Envoy then rejects that one resource and
// says so, and everything else goes on.
func Any(m proto.Message) *anypb.Any {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	name := string(m.ProtoReflect().Descriptor().FullName())
	if err != nil {
		return &anypb.Any{TypeUrl: resource.APITypePrefix + "fairway.invalid." + name}
	}
	return &anypb.Any{TypeUrl: resource.APITypePrefix + name, Value: b}
}

// Duration converts a duration.
func Duration(d time.Duration) *durationpb.Duration { return durationpb.New(d) }

// UInt32 wraps a number.
func UInt32(v uint32) *wrapperspb.UInt32Value { return wrapperspb.UInt32(v) }

// Bool wraps a truth value.
func Bool(v bool) *wrapperspb.BoolValue { return wrapperspb.Bool(v) }

// ADS is the config source of everything that the aggregated stream carries. Envoy waits initialFetch for the first
// answer before it takes the parent resource into use without it; zero keeps Envoy's default of 15 s.
func ADS(initialFetch time.Duration) *corev3.ConfigSource {
	c := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
	if initialFetch > 0 {
		c.InitialFetchTimeout = Duration(initialFetch)
	}
	return c
}

// Address is a TCP address of the proxy's own network namespace.
func Address(a netip.AddrPort) *corev3.Address { return AddressInNetns(a, "") }

// AddressInNetns is a TCP address in the network namespace at a path; "" is the proxy's own.
func AddressInNetns(a netip.AddrPort, netns string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address:                  a.Addr().String(),
		PortSpecifier:            &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
		NetworkNamespaceFilepath: netns,
	}}}
}

// InternalAddress leads to an internal listener of the same Envoy. The id tells endpoints of one cluster apart.
func InternalAddress(listener, id string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_EnvoyInternalAddress{
		EnvoyInternalAddress: &corev3.EnvoyInternalAddress{
			AddressNameSpecifier: &corev3.EnvoyInternalAddress_ServerListenerName{ServerListenerName: listener},
			EndpointId:           id,
		},
	}}
}

// PipeAddress is a Unix socket.
func PipeAddress(path string) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path}}}
}

// LbEndpoint is an endpoint with its metadata.
func LbEndpoint(a *corev3.Address, metadata *corev3.Metadata) *endpointv3.LbEndpoint {
	return &endpointv3.LbEndpoint{
		HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: a}},
		Metadata:       metadata,
	}
}

// Metadata is filter metadata of string values by namespace and key.
func Metadata(byNamespace map[string]map[string]string) *corev3.Metadata {
	m := &corev3.Metadata{FilterMetadata: make(map[string]*structpb.Struct, len(byNamespace))}
	for ns, values := range byNamespace {
		m.FilterMetadata[ns] = Struct(values)
	}
	return m
}

// Struct is a struct of string values.
func Struct(values map[string]string) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(values))}
	for k, v := range values {
		s.Fields[k] = structpb.NewStringValue(v)
	}
	return s
}

// Maglev picks the endpoint by a hash, so that equal clients get the same one on every proxy. It takes precedence over
// the cluster's LbPolicy.
func Maglev(by *routev3.RouteAction_HashPolicy) *clusterv3.LoadBalancingPolicy {
	return maglev(by, &maglevv3.Maglev{})
}

// mostOfRing bounds the memory of a ring, of which there is one for each port and set of endpoints.
const mostOfRing = 65536

// RingHash is like Maglev, and moves fewer clients when endpoints change.
func RingHash(by *routev3.RouteAction_HashPolicy) *clusterv3.LoadBalancingPolicy {
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: Extension("envoy.load_balancing_policies.ring_hash", &ringhashv3.RingHash{
			MaximumRingSize: wrapperspb.UInt64(mostOfRing),
			ConsistentHashingLbConfig: &lbcommonv3.ConsistentHashingLbConfig{
				HashPolicy: []*routev3.RouteAction_HashPolicy{by},
			},
		}),
	}}}
}

// smallTable is a prime number.
const smallTable = 8191

// SmallMaglev is Maglev for clusters of which there may be thousands, with few clients each: its table takes an eighth
// of the memory, some 110 KB otherwise, and has room for 8,191 endpoints.
func SmallMaglev(by *routev3.RouteAction_HashPolicy) *clusterv3.LoadBalancingPolicy {
	return maglev(by, &maglevv3.Maglev{TableSize: wrapperspb.UInt64(smallTable)})
}

func maglev(by *routev3.RouteAction_HashPolicy, m *maglevv3.Maglev) *clusterv3.LoadBalancingPolicy {
	m.ConsistentHashingLbConfig = &lbcommonv3.ConsistentHashingLbConfig{HashPolicy: []*routev3.RouteAction_HashPolicy{by}}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: Extension("envoy.load_balancing_policies.maglev", m),
	}}}
}

// MetadataSocketMatch is where Envoy looks for the endpoint's side of a transport socket match.
const MetadataSocketMatch = "envoy.transport_socket_match"

// MetadataBalance is where Envoy's load balancer looks for what endpoints and connections say of themselves.
const MetadataBalance = "envoy.lb"

// Subsets picks among the endpoints whose value of a key in MetadataBalance is the connection's, or whose list of
// values has it; where there is none, among those with the other value. By what it picks is another policy: least
// requests if nil.
func Subsets(key, other string, by *clusterv3.LoadBalancingPolicy) *clusterv3.LoadBalancingPolicy {
	if by == nil {
		by = &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
			TypedExtensionConfig: Extension("envoy.load_balancing_policies.least_request", &leastrequestv3.LeastRequest{}),
		}}}
	}
	return &clusterv3.LoadBalancingPolicy{Policies: []*clusterv3.LoadBalancingPolicy_Policy{{
		TypedExtensionConfig: Extension("envoy.load_balancing_policies.subset", &subsetv3.Subset{
			FallbackPolicy:  subsetv3.Subset_DEFAULT_SUBSET,
			DefaultSubset:   Struct(map[string]string{key: other}),
			SubsetSelectors: []*subsetv3.Subset_LbSubsetSelector{{Keys: []string{key}}},
			ListAsAny:       true,
			SubsetLbPolicy:  by,
		}),
	}}}
}

// Extension is an extension's typed configuration.
func Extension(name string, m proto.Message) *corev3.TypedExtensionConfig {
	return &corev3.TypedExtensionConfig{Name: name, TypedConfig: Any(m)}
}

// Mark is the socket option that sets SO_MARK before a socket is bound.
func Mark(mark int64) *corev3.SocketOption {
	return beforeBind("SO_MARK", 36, mark)
}

// Priority is the socket option that sets SO_PRIORITY before a socket is bound.
func Priority(priority int64) *corev3.SocketOption {
	return beforeBind("SO_PRIORITY", 12, priority)
}

// ReuseAddress is the socket option that lets a listener have the port of a socket that connects, or has until lately.
func ReuseAddress() *corev3.SocketOption {
	return beforeBind("SO_REUSEADDR", 2, 1)
}

// Transparent is the socket option that lets a socket have an address of the family that isn't its host's.
func Transparent(of netip.Addr) *corev3.SocketOption {
	if of.Is4() {
		return beforeBindOf(0, "IP_TRANSPARENT", 19, 1)
	}
	return beforeBindOf(41, "IPV6_TRANSPARENT", 75, 1)
}

// beforeBind sets an option of the level SOL_SOCKET.
func beforeBind(name string, option, value int64) *corev3.SocketOption {
	return beforeBindOf(1, name, option, value)
}

// beforeBindOf sets an option of a level. The numbers are Linux's, whatever this runs on.
func beforeBindOf(level int64, name string, option, value int64) *corev3.SocketOption {
	return &corev3.SocketOption{
		Description: name,
		Level:       level,
		Name:        option,
		Value:       &corev3.SocketOption_IntValue{IntValue: value},
		State:       corev3.SocketOption_STATE_PREBIND,
	}
}
