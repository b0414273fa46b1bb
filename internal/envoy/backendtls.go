// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	internalupstreamv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/internal_upstream/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	metadatav3 "github.com/envoyproxy/go-control-plane/envoy/type/metadata/v3"
)

// transportInternal is the name under which Envoy registers the transport socket to internal listeners.
const transportInternal = "envoy.transport_sockets.internal_upstream"

// systemRoots are the certificates of authorities that the image of stock Envoy has.
const systemRoots = "/etc/ssl/certs/ca-certificates.crt"

// Filter state of a connection that decides about the TLS of the one that it leads to.
const (
	// FilterStateServerName is the server name (SNI) to ask for.
	FilterStateServerName = "envoy.network.upstream_server_name"
	// FilterStateServerSANs are subject alternative names of which the server's certificate must have one, besides what
	// its cluster asks of it.
	FilterStateServerSANs = "envoy.network.upstream_subject_alt_names"
)

// TLSServer says who is to answer in TLS.
type TLSServer struct {
	// Name is asked for (SNI).
	Name string
	// Hosts and URIs: one of all of these must be in the certificate. "*.example.com" is every host that ends likewise.
	Hosts, URIs []string
	// Roots in PEM, of which one must have issued it; System: those of the image.
	Roots  string
	System bool
}

// TLSClient is the transport socket of TLS with somebody outside the mesh. The certificate is looked at for every
// connection: sessions are not resumed.
func TLSClient(s TLSServer) *corev3.TransportSocket {
	trusted := &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: s.Roots}}
	if s.System {
		trusted.Specifier = &corev3.DataSource_Filename{Filename: systemRoots}
	}
	return &corev3.TransportSocket{
		Name: transportTLS,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Any(&tlsv3.UpstreamTlsContext{
			Sni: s.Name,
			CommonTlsContext: &tlsv3.CommonTlsContext{
				TlsParams: &tlsv3.TlsParameters{
					TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2,
					TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
				},
				ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{
					ValidationContext: &tlsv3.CertificateValidationContext{
						TrustedCa: trusted, MatchTypedSubjectAltNames: serverSANs(s),
					},
				},
			},
			MaxSessionKeys: UInt32(0),
		})},
	}
}

// serverSANs is never empty: that would be anybody.
func serverSANs(s TLSServer) []*tlsv3.SubjectAltNameMatcher {
	var out []*tlsv3.SubjectAltNameMatcher
	for _, host := range s.Hosts {
		is := &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: host}}
		if end, wildcard := strings.CutPrefix(host, "*"); wildcard {
			is = &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Suffix{Suffix: end}}
		}
		out = append(out, &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_DNS, Matcher: is})
	}
	out = append(out, SPIFFEIDs(s.URIs...)...)
	if len(out) == 0 {
		return SPIFFEIDs("spiffe://none")
	}
	return out
}

// Inside is a transport socket for connections to an internal listener, which learns of an endpoint what is in a
// namespace of its metadata.
func Inside(socket *corev3.TransportSocket, namespace string) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: transportInternal,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Any(&internalupstreamv3.InternalUpstreamTransport{
			TransportSocket: socket,
			PassthroughMetadata: []*internalupstreamv3.InternalUpstreamTransport_MetadataValueSource{{
				Kind: &metadatav3.MetadataKind{Kind: &metadatav3.MetadataKind_Host_{Host: &metadatav3.MetadataKind_Host{}}},
				Name: namespace,
			}},
		})},
	}
}
