// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	originalsrcv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_src/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// Pod is a captured pod of the node, as far as its listeners depend on it. Equal pods get equal listeners, so nothing
// that happens elsewhere ever drains a connection.
type Pod struct {
	UID, Namespace, Name string
	// IPs of the pod, the primary one first.
	IPs []netip.Addr
	// Identity is the SPIFFE ID of the pod's service account. Peers must be of the same trust domain.
	Identity string
	// Netns is the path of the pod's network namespace as the proxy sees it.
	Netns string
	// Strict refuses plaintext, but at ports in Except; where it is false, plaintext is refused at those. Sorted.
	Strict bool
	Except []uint16
	// Neighbours: what the pod sends to captured pods of its node passes the proxy once, where nothing speaks against it.
	Neighbours bool
}

// StrictAt tells whether plaintext is refused at a port.
func (p Pod) StrictAt(port uint16) bool { return p.Strict != slices.Contains(p.Except, port) }

// RefusesPlaintext tells whether it does anywhere.
func (p Pod) RefusesPlaintext() bool { return p.Strict || len(p.Except) > 0 }

// Names of a pod's listeners.
const (
	prefixOutbound = "outbound/"
	prefixInbound  = "inbound/"
	prefixMTLS     = "mtls/"
)

// ListenerNames are the names of the listeners of the pod with a UID.
func ListenerNames(uid string) []string {
	return []string{prefixOutbound + uid, prefixInbound + uid, prefixMTLS + uid}
}

// TakesMTLS tells whether a listener is that in which a pod takes mTLS. It listens once the pod has a certificate.
func TakesMTLS(name string) bool { return strings.HasPrefix(name, prefixMTLS) }

const (
	// onDemandTimeout bounds how long a connection waits for the operator's answer about an address that nobody on
	// the node dialled before. It matters only while agent and operator can't talk.
	onDemandTimeout = 15 * time.Second
	// connectAttempts before the application sees a failure, with a pause between them of anything up to backoff, so that
	// a connection outlives an endpoint that has just gone. The pauses don't grow: Envoy keeps how far they have for all
	// connections of a listener together, so those that fail would slow others.
	connectAttempts = 6
	backoff         = 320 * time.Millisecond
)

// strictRefused is a cluster that never exists: tcp_proxy closes the connection, and the access log names the reason.
const strictRefused = "refused/plaintext-in-strict-mode"

// Listeners are the listeners of a captured pod, by the names in ListenerNames. A pod without an address has none.
func Listeners(p Pod) []*listenerv3.Listener {
	if len(p.IPs) == 0 {
		return nil
	}
	return []*listenerv3.Listener{outbound(p), inbound(p), mtls(p)}
}

// outbound takes what the pod's applications send to addresses of the mesh.
func outbound(p Pod) *listenerv3.Listener {
	l := listener(p, prefixOutbound+p.UID, names.PortOutbound)
	l.ListenerFilters = []*listenerv3.ListenerFilter{originalDst()}
	l.TrafficDirection = corev3.TrafficDirection_OUTBOUND
	before, behind := fromNeighbours(p)
	filters := append([]*listenerv3.Filter{
		envoy.SetFilterState(append([]*statev3.FilterStateValue{
			envoy.FilterState(envoy.FilterStateCluster, "", "%DOWNSTREAM_LOCAL_ADDRESS%", envoy.SharedNot),
			envoy.FilterState(envoy.FilterStateCertificate, envoy.FactoryHashableString, envoy.Literal(p.Identity),
				envoy.SharedOnce),
			podNetns(p, envoy.SharedOnce),
		}, before...)...),
	}, behind...)
	chain := &listenerv3.FilterChain{
		Filters: append(filters, envoy.NetworkFilter("envoy.filters.network.tcp_proxy", outboundProxy(p))),
	}
	if p.Neighbours {
		chain.Name = p.caller()
	}
	l.FilterChains = []*listenerv3.FilterChain{chain}
	return l
}

func outboundProxy(p Pod) *tcpproxyv3.TcpProxy {
	log := map[string]string{
		"direction":   "outbound",
		"source":      envoy.Literal(p.Identity),
		"destination": "%UPSTREAM_PEER_URI_SAN%",
		"dialled":     "%DOWNSTREAM_LOCAL_ADDRESS%",
	}
	if p.Neighbours {
		log["neighbour"] = envoy.PlainState(names.FilterStateDestination)
	}
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix:       "outbound",
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "unset"}, // the filter state decides
		MetadataMatch:    upstream.OfCaller(p.Namespace),
		OnDemand: &tcpproxyv3.TcpProxy_OnDemand{
			OdcdsConfig: envoy.ADS(0),
			Timeout:     envoy.Duration(onDemandTimeout),
		},
		// How long a connection may be idle is the application's business.
		IdleTimeout:        envoy.Duration(0),
		MaxConnectAttempts: envoy.UInt32(connectAttempts),
		BackoffOptions: &corev3.BackoffStrategy{
			BaseInterval: envoy.Duration(backoff),
			MaxInterval:  envoy.Duration(backoff),
		},
		AccessLog: []*accesslogv3.AccessLog{
			envoy.StdoutLog(logFields(p, log), envoy.Flagged()),
			envoy.CountPlaintext(p.Namespace, p.Neighbours),
		},
	}
	if p.Neighbours {
		envoy.TellOfNeighbours(proxy)
	}
	return proxy
}

// inbound takes the plaintext that reaches the pod from outside.
func inbound(p Pod) *listenerv3.Listener {
	l := listener(p, prefixInbound+p.UID, names.PortInbound)
	envoy.NoticeDeadClients(l)
	l.TrafficDirection = corev3.TrafficDirection_INBOUND
	l.ListenerFilters = []*listenerv3.ListenerFilter{originalDst()}
	if !p.Strict || len(p.Except) > 0 {
		l.ListenerFilters = append(l.ListenerFilters,
			envoy.ListenerFilter("envoy.filters.listener.original_src", &originalsrcv3.OriginalSrc{}))
	}
	for _, port := range p.Except {
		l.FilterChains = append(l.FilterChains, plaintextChains(p, port, p.StrictAt(port))...)
	}
	l.FilterChains = append(l.FilterChains, plaintextChains(p, 0, p.Strict)...)
	return l
}

// plaintextChains are those of a port, or of all that have none (0). What has another mode is in the name of each: when
// that changes, all connections in plaintext drain, also those that would stay by their chain, which is how those end
// that are no longer taken.
func plaintextChains(p Pod, port uint16, strict bool) (out []*listenerv3.FilterChain) {
	match := func() *listenerv3.FilterChainMatch {
		if port == 0 {
			return nil
		}
		return &listenerv3.FilterChainMatch{DestinationPort: envoy.UInt32(uint32(port))}
	}
	name := func(name string) string {
		if len(p.Except) > 0 {
			return fmt.Sprintf("%s/%d strict=%t but %v", name, port, p.Strict, p.Except)
		}
		return name
	}
	if strict {
		chain := &listenerv3.FilterChain{
			Name: name(""), FilterChainMatch: match(), Filters: []*listenerv3.Filter{
				envoy.SetFilterState(thePod(p)), inboundProxy(p, strictRefused),
			},
		}
		return append(out, chain)
	}
	for _, a := range families(p.IPs) {
		application := netip.MustParseAddr(names.ApplicationAddress)
		if a.Is6() {
			application = netip.MustParseAddr(names.ApplicationAddress6)
		}
		of := match()
		if of == nil {
			of = &listenerv3.FilterChainMatch{}
		}
		of.PrefixRanges = []*corev3.CidrRange{{AddressPrefix: a.String(), PrefixLen: envoy.UInt32(0)}}
		out = append(out, &listenerv3.FilterChain{
			Name: name(a.String()), FilterChainMatch: of,
			Filters: append(guarded(p, a, host(application)+":%DOWNSTREAM_LOCAL_PORT%"),
				inboundProxy(p, upstream.ClusterDirect)),
		})
	}
	return out
}

func inboundProxy(p Pod, cluster string) *listenerv3.Filter {
	log := map[string]string{
		"direction":   "inbound-plaintext",
		"destination": envoy.Literal(p.Identity),
		"dialled":     "%DOWNSTREAM_LOCAL_ADDRESS%",
		"cluster":     "%UPSTREAM_CLUSTER%",
	}
	proxy := &tcpproxyv3.TcpProxy{
		StatPrefix:       "inbound",
		ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: cluster},
		IdleTimeout:      envoy.Duration(0),
	}
	if cluster == strictRefused {
		proxy.AccessLog = []*accesslogv3.AccessLog{
			envoy.StdoutLog(logFields(p, log), envoy.Flagged()), envoy.TellOfConnections(nil),
		}
	} else {
		proxy.AccessLog = guardedLog(p, log)
		envoy.TellOfOpen(names.LogPlaintext, proxy)
	}
	return envoy.NetworkFilter("envoy.filters.network.tcp_proxy", proxy)
}

// mtls takes what other members of the mesh send to the pod.
func mtls(p Pod) *listenerv3.Listener {
	trustDomain, _, _, _ := names.ParseSPIFFEID(p.Identity)
	l := listener(p, prefixMTLS+p.UID, names.PortMTLS)
	l.TrafficDirection = corev3.TrafficDirection_INBOUND
	l.SocketOptions = envoy.RoomForEnds()
	envoy.AwaitHello(l)
	l.ListenerFilters = append(l.ListenerFilters,
		envoy.ListenerFilter("envoy.filters.listener.original_src", &originalsrcv3.OriginalSrc{}))
	for _, a := range families(p.IPs) {
		own := ofFamily(p.IPs, a)
		l.FilterChains = append(l.FilterChains, &listenerv3.FilterChain{
			Name: a.String(),
			FilterChainMatch: &listenerv3.FilterChainMatch{PrefixRanges: []*corev3.CidrRange{{
				AddressPrefix: a.String(), PrefixLen: envoy.UInt32(0),
			}}},
			TransportSocket: envoy.MTLSServerOnDemand(p.Identity, names.TrustBundleSecret,
				[]*tlsv3.SubjectAltNameMatcher{envoy.TrustDomain(trustDomain)}),
			TransportSocketConnectTimeout: envoy.Duration(envoy.HandshakeTimeout),
			// The peer names the pod's port, and no address: it can ask for nothing but the pod itself.
			Filters: append(append([]*listenerv3.Filter{envoy.PeerLimit()},
				guarded(p, a, host(own)+":%REQUESTED_SERVER_NAME%")...),
				envoy.Ended(envoy.TellOfOpen(names.LogMTLS, &tcpproxyv3.TcpProxy{
					StatPrefix:       "mtls",
					ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: upstream.ClusterDirect},
					AccessLog: append(guardedLog(p, map[string]string{
						"direction":   "inbound-mtls",
						"source":      "%DOWNSTREAM_PEER_URI_SAN%",
						"destination": envoy.Literal(p.Identity),
						"dialled":     host(own) + ":%REQUESTED_SERVER_NAME%",
					}), envoy.TellOfConnections(envoy.TriedOnly())),
				}))),
		})
	}
	return l
}

// ofFamily is the first of addresses that is of a family. The caller's address becomes the source of the connection to
// the application, so both must be of one family.
func ofFamily(ips []netip.Addr, family netip.Addr) netip.Addr {
	return ips[slices.IndexFunc(ips, func(a netip.Addr) bool { return a.Unmap().Is4() == family.Is4() })].Unmap()
}

// host is an address as it stands before a port.
func host(a netip.Addr) string {
	if a.Is6() {
		return "[" + a.String() + "]"
	}
	return a.String()
}

// listener listens on a port inside the pod's network namespace, for each address family that the pod has.
func listener(p Pod, name string, port uint16) *listenerv3.Listener {
	l := &listenerv3.Listener{
		Name:                          name,
		PerConnectionBufferLimitBytes: envoy.UInt32(envoy.HeldBytes),
	}
	for _, a := range families(p.IPs) {
		address := envoy.AddressInNetns(netip.AddrPortFrom(a, port), p.Netns)
		if l.Address == nil {
			l.Address = address
			continue
		}
		l.AdditionalAddresses = append(l.AdditionalAddresses, &listenerv3.AdditionalAddress{Address: address})
	}
	return l
}

// families are the wildcard addresses of the families that occur, in the order in which they occur first.
func families(ips []netip.Addr) []netip.Addr {
	var out []netip.Addr
	seen := map[netip.Addr]bool{}
	for _, ip := range ips {
		w := netip.IPv6Unspecified()
		if ip.Unmap().Is4() {
			w = netip.IPv4Unspecified()
		}
		if !seen[w] {
			seen[w] = true
			out = append(out, w)
		}
	}
	return out
}

func podNetns(p Pod, sharing envoy.Sharing) *statev3.FilterStateValue {
	return envoy.FilterState(envoy.FilterStateNetns, envoy.FactoryHashableString, envoy.Literal(p.Netns), sharing)
}

func originalDst() *listenerv3.ListenerFilter {
	return envoy.ListenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{})
}

// logFields adds what every line of the access log has.
func logFields(p Pod, fields map[string]string) map[string]string {
	fields["time"] = "%START_TIME%"
	fields["pod"] = envoy.Literal(p.Namespace + "/" + p.Name)
	fields["from"] = "%DOWNSTREAM_REMOTE_ADDRESS%"
	fields["to"] = "%UPSTREAM_HOST%"
	fields["received"] = "%BYTES_RECEIVED%"
	fields["sent"] = "%BYTES_SENT%"
	fields["ms"] = "%DURATION%"
	fields["flags"] = "%RESPONSE_FLAGS%"
	fields["failure"] = "%UPSTREAM_TRANSPORT_FAILURE_REASON%"
	return fields
}
