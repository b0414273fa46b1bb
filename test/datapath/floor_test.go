// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"google.golang.org/protobuf/proto"

	"github.com/fairway-mesh/fairway/internal/bootstrap"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

const (
	// floorMark lets the bare proxy's own connections pass.
	floorMark = 0xf1
	// floorOutbound and floorMTLS are the first of the ports that the bare proxies listen on.
	floorOutbound = 15101
	floorMTLS     = 15108
)

// floor is what a stock Envoy costs at least that keeps the promises of the data path: one beside the client and one
// beside the server, in their network namespaces, with a connection of TLS 1.3 for each connection, and nothing else.
// What the client sends to the server's ports is redirected, as capture does.
func floor(t testing.TB, client, server *pod, ports ...uint16) []*proxy {
	t.Helper()
	out, in := &bootstrapv3.Bootstrap_StaticResources{}, &bootstrapv3.Bootstrap_StaticResources{}
	for n, port := range ports {
		name, taken, met := fmt.Sprint(port), uint16(floorOutbound+n), server.at(uint16(floorMTLS+n))
		redirect(t, client, server.at(port), taken)
		l, c := bare(name, netip.AddrPortFrom(netip.IPv4Unspecified(), taken), met)
		l.ListenerFilters = []*listenerv3.ListenerFilter{
			envoy.ListenerFilter("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}),
		}
		c.TransportSocket = socket(&tlsv3.UpstreamTlsContext{CommonTlsContext: bareTLS(client), Sni: name})
		out.Listeners, out.Clusters = append(out.Listeners, l), append(out.Clusters, c)
		l, c = bare(name, met, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), port))
		l.FilterChains[0].TransportSocket = socket(&tlsv3.DownstreamTlsContext{
			CommonTlsContext: bareTLS(server), RequireClientCertificate: envoy.Bool(true),
			SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
				DisableStatelessSessionResumption: true,
			},
			DisableStatefulSessionResumption: true,
		})
		in.Listeners, in.Clusters = append(in.Listeners, l), append(in.Clusters, c)
	}
	return []*proxy{runBare(t, client, out), runBare(t, server, in)}
}

// runBare runs an Envoy beside a pod.
func runBare(t testing.TB, p *pod, resources *bootstrapv3.Bootstrap_StaticResources) *proxy {
	t.Helper()
	admin := filepath.Join(t.TempDir(), "admin.sock")
	config, err := bootstrap.Marshal(&bootstrapv3.Bootstrap{
		Node: &corev3.Node{Id: p.name, Cluster: "floor"}, StaticResources: resources,
		Admin: &bootstrapv3.Admin{Address: envoy.PipeAddress(admin)},
	})
	require.NoError(t, err)
	return runEnvoy(t, p.name, p.ns, config, admin)
}

// bareTLS is TLS with a certificate for a pod, among those of the trust domain.
func bareTLS(of *pod) *tlsv3.CommonTlsContext {
	t := of.mesh.t
	certificate, key := testca.PEM(t, of.mesh.ca.Issue(names.SPIFFEID(trustDomain, "default", of.name)))
	return &tlsv3.CommonTlsContext{
		TlsParams: &tlsv3.TlsParameters{
			TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
			EcdhCurves: []string{"X25519MLKEM768", "X25519"},
		},
		TlsCertificates: []*tlsv3.TlsCertificate{{CertificateChain: inline(certificate), PrivateKey: inline(key)}},
		ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{
			ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa:                 inline(of.mesh.ca.PEM()),
				MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{envoy.TrustDomain(trustDomain)},
			},
		},
	}
}

// bare are a listener that leads to an address, and the cluster that it does it by.
func bare(name string, at, to netip.AddrPort) (*listenerv3.Listener, *clusterv3.Cluster) {
	endpoint := envoy.LbEndpoint(envoy.Address(to), nil)
	l := &listenerv3.Listener{Name: name, Address: envoy.Address(at), FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{envoy.NetworkFilter("envoy.filters.network.tcp_proxy", &tcpproxyv3.TcpProxy{
			StatPrefix: name, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: name},
		})},
	}}}
	c := &clusterv3.Cluster{
		Name: name, ConnectTimeout: envoy.Duration(patience),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		UpstreamBindConfig:   &corev3.BindConfig{SocketOptions: []*corev3.SocketOption{envoy.Mark(floorMark)}},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{
			ClusterName: name,
			Endpoints:   []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{endpoint}}},
		},
	}
	return l, c
}

func socket(context proto.Message) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       "envoy.transport_sockets.tls",
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: envoy.Any(context)},
	}
}

// redirect what the pod sends to an address to a port of the proxy beside it, unless that sends it.
func redirect(t testing.TB, p *pod, to netip.AddrPort, taken uint16) {
	t.Helper()
	require.NoError(t, p.ns.Do(func() error {
		c, err := nftables.New()
		if err != nil {
			return err
		}
		const specified = 2 // NF_NAT_RANGE_PROTO_SPECIFIED
		is := func(op expr.CmpOp, data []byte) *expr.Cmp { return &expr.Cmp{Op: op, Register: 1, Data: data} }
		table := c.AddTable(&nftables.Table{Name: "floor", Family: nftables.TableFamilyIPv4})
		chain := c.AddChain(&nftables.Chain{
			Name: fmt.Sprint("to-", taken), Table: table, Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookOutput,
			Priority: nftables.ChainPriorityNATDest,
		})
		c.AddRule(&nftables.Rule{Table: table, Chain: chain, Exprs: []expr.Any{
			&expr.Meta{Key: expr.MetaKeyMARK, Register: 1}, is(expr.CmpOpNeq, binaryutil.NativeEndian.PutUint32(floorMark)),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: 16, Len: 4},
			is(expr.CmpOpEq, to.Addr().AsSlice()),
			&expr.Meta{Key: expr.MetaKeyL4PROTO, Register: 1}, is(expr.CmpOpEq, []byte{unix.IPPROTO_TCP}),
			&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseTransportHeader, Offset: 2, Len: 2},
			is(expr.CmpOpEq, binaryutil.BigEndian.PutUint16(to.Port())),
			&expr.Immediate{Register: 1, Data: binaryutil.BigEndian.PutUint16(taken)},
			&expr.Redir{RegisterProtoMin: 1, Flags: specified},
		}})
		return c.Flush()
	}))
}
