// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"
	"time"

	xdscorev3 "github.com/cncf/xds/go/xds/core/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	dnscachev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/dynamic_forward_proxy/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// externalTimeout bounds TCP and TLS to a host outside, which is farther away than any pod.
	externalTimeout = 10 * time.Second
	// idleExternal is how long a connection to a host outside is kept without a request: handshakes with it are slow, and
	// what serves the public keeps connections for a minute or longer.
	idleExternal = 30 * time.Second
	// longestExternal is how long a connection is used at most: one that is never idle would stay with an address that the
	// name has no more.
	longestExternal = 5 * time.Minute
	// resolveEvery is how often a name is looked up that DNS has nothing to say of; else its TTL says, but not more often.
	resolveEvery = 5 * time.Second
	// resolveFailed and resolveFailedMost are the pauses after a failure; what was found before stays meanwhile.
	resolveFailed, resolveFailedMost = time.Second, 15 * time.Second
	// resolveTimeout bounds how long a request waits for a name that nobody knows yet.
	resolveTimeout = 5 * time.Second
	// unusedFor is how long a name is kept that nobody asks for. Within it, a failure of DNS goes unnoticed.
	unusedFor = time.Hour
	// nameCaches are the caches of names of a proxy, and mostNames bounds each. Every cluster of a cache knows all of its
	// names, so there are several; and none of them ever goes away while the proxy runs, so no tenant may name one.
	nameCaches, mostNames = 64, 256
)

// External is a host outside the cluster. The proxy looks it up itself, and what it finds in the ranges that are
// refused is as if it weren't there. Which host it is says the way of each request (names.FilterExternal).
func External(e model.External, refused []netip.Prefix, headers model.HeaderLimits) *clusterv3.Cluster {
	out := &clusterv3.Cluster{
		Name:                      names.External(e.Name.Namespace, e.Name.Name, e.Version),
		ConnectTimeout:            envoy.Duration(externalTimeout),
		LbPolicy:                  clusterv3.Cluster_CLUSTER_PROVIDED,
		UpstreamConnectionOptions: envoy.NoticeDeadServers(),
		CircuitBreakers:           limits(model.SendingLimits{}, nil),
		ClusterDiscoveryType: &clusterv3.Cluster_ClusterType{ClusterType: &clusterv3.Cluster_CustomClusterType{
			Name: "envoy.clusters.dynamic_forward_proxy",
			TypedConfig: envoy.Any(&dfpv3.ClusterConfig{
				ClusterImplementationSpecifier: &dfpv3.ClusterConfig_DnsCacheConfig{
					DnsCacheConfig: nameCache(e.Address(), refused),
				},
				// The cluster's own TLS says what is asked for and who must answer, whatever the request's host is.
				AllowInsecureClusterOptions: true,
			}),
		}},
		TypedExtensionProtocolOptions: externalProtocol(e, headers),
	}
	out.AltStatName = statName(out.GetName()) // XBackends may have dots in their names
	if t := e.TLS; t != nil {
		out.TransportSocket = envoy.TLSClient(envoy.TLSServer{
			Name: t.Hostname, Hosts: t.Hosts, URIs: t.URIs, Roots: t.CAs, System: t.System,
		})
	}
	return out
}

// nameCache is the one of a proxy's caches that has a name. Other ranges are another cache: Envoy never changes one.
func nameCache(address string, refused []netip.Prefix) *dnscachev3.DnsCacheConfig {
	var ranges []*xdscorev3.CidrRange
	var told strings.Builder
	for _, p := range refused {
		fmt.Fprintln(&told, p)
		ranges = append(ranges, &xdscorev3.CidrRange{
			AddressPrefix: p.Addr().String(), PrefixLen: envoy.UInt32(uint32(p.Bits())), //nolint:gosec // 0 to 128
		})
	}
	all, one := sha256.Sum256([]byte(told.String())), sha256.Sum256([]byte(address))
	out := &dnscachev3.DnsCacheConfig{
		Name:              fmt.Sprintf("external-%s-%d", hex.EncodeToString(all[:8]), one[0]%nameCaches),
		DnsLookupFamily:   clusterv3.Cluster_ALL,
		DnsRefreshRate:    envoy.Duration(resolveEvery),
		DnsMinRefreshRate: envoy.Duration(resolveEvery),
		DnsFailureRefreshRate: &clusterv3.Cluster_RefreshRate{
			BaseInterval: envoy.Duration(resolveFailed), MaxInterval: envoy.Duration(resolveFailedMost),
		},
		DnsQueryTimeout: envoy.Duration(resolveTimeout),
		HostTtl:         envoy.Duration(unusedFor),
		MaxHosts:        envoy.UInt32(mostNames),
		// The pod's resolvers, and names as they stand: its search domains would make other hosts of them.
		TypedDnsResolverConfig: envoy.Extension("envoy.network.dns_resolver.cares", &caresv3.CaresDnsResolverConfig{
			DnsResolverOptions: &corev3.DnsResolverOptions{NoDefaultSearchDomain: true},
		}),
	}
	if len(ranges) > 0 {
		out.ResolvedAddressFilter = &matcherv3.AddressMatcher{Ranges: ranges}
	}
	return out
}

// inner are headers that say who asks, and from where, within the mesh. They are nobody else's business, and a host
// outside may take them for what its own gateway says: that the request came without TLS, say.
var inner = []string{"x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-proto"}

// keepInside takes them out of requests that leave, after all that decides on these has seen them.
func keepInside() *hcmv3.HttpFilter {
	m := &headermutationv3.Mutations{}
	for _, name := range inner {
		m.RequestMutations = append(m.RequestMutations,
			&mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Remove{Remove: name}})
	}
	return envoy.HTTPFilter("fairway.kept_inside", &headermutationv3.HeaderMutation{Mutations: m})
}

func externalProtocol(e model.External, headers model.HeaderLimits) protocols {
	o, h2 := httpOptions(headers, idleExternal, keepInside())
	o.CommonHttpProtocolOptions.MaxConnectionDuration = envoy.Duration(longestExternal)
	h1 := &corev3.Http1ProtocolOptions{EnableTrailers: true}
	switch e.Protocol {
	case model.ExternalNegotiated:
		o.UpstreamProtocolOptions = &upstreamhttpv3.HttpProtocolOptions_AutoConfig{
			AutoConfig: &upstreamhttpv3.HttpProtocolOptions_AutoHttpConfig{HttpProtocolOptions: h1, Http2ProtocolOptions: h2},
		}
	case model.ExternalHTTP2:
		o.UpstreamProtocolOptions = onlyHTTP2(h2)
	case model.ExternalHTTP11:
		o.UpstreamProtocolOptions = &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_HttpProtocolOptions{
					HttpProtocolOptions: h1,
				},
			},
		}
	default:
		o.UpstreamProtocolOptions = asCaller(h1, h2)
	}
	return packed(o)
}
