// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	mapperv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/filter_state_override/v3"
	staticnamev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_mappers/static_name/v3"
	certselectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/cert_selectors/on_demand_secret/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Names under which Envoy registers its transport sockets.
const (
	transportTLS = "envoy.transport_sockets.tls"
	transportRaw = "envoy.transport_sockets.raw_buffer"
)

// noSecret is the secret that is asked for where no client identity is set. It must not exist: the handshake then
// fails.
const noSecret = "none"

// tlsParameters is TLS 1.3 only, with the post-quantum hybrid group first where the peer has it too. Both versions are
// set because an upstream context's default maximum is TLS 1.2.
func tlsParameters() *tlsv3.TlsParameters {
	return &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		EcdhCurves:                []string{"X25519MLKEM768", "X25519"},
	}
}

// TrustDomain matches every SPIFFE ID of a trust domain.
func TrustDomain(trustDomain string) *tlsv3.SubjectAltNameMatcher {
	return spiffePrefix("spiffe://" + trustDomain + "/")
}

// TrustDomainOf matches the peers of an identity; none if it is not a SPIFFE ID.
func TrustDomainOf(identity string) []*tlsv3.SubjectAltNameMatcher {
	td, _, _, ok := names.ParseSPIFFEID(identity)
	if !ok {
		return nil
	}
	return []*tlsv3.SubjectAltNameMatcher{TrustDomain(td)}
}

// SPIFFEIDs matches exactly these identities, in the order given.
func SPIFFEIDs(ids ...string) []*tlsv3.SubjectAltNameMatcher {
	out := make([]*tlsv3.SubjectAltNameMatcher, 0, len(ids))
	for _, id := range ids {
		out = append(out, uriSAN(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: id}}))
	}
	return out
}

// mostIdentities may answer by name in one place: each costs a proxy 0.7 KB.
const mostIdentities = 16

// MayAnswer matches these identities, sorted. Where they are too many, it is all of their namespaces.
func MayAnswer(identities []string) []*tlsv3.SubjectAltNameMatcher {
	if len(identities) <= mostIdentities {
		return SPIFFEIDs(identities...)
	}
	var out []*tlsv3.SubjectAltNameMatcher
	last := ""
	for _, id := range identities {
		if ns := names.SPIFFENamespace(id); ns != last {
			out, last = append(out, spiffePrefix(ns)), ns
		}
	}
	return out
}

// spiffePrefix matches every SPIFFE ID that begins so.
func spiffePrefix(prefix string) *tlsv3.SubjectAltNameMatcher {
	return uriSAN(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}})
}

func uriSAN(m *matcherv3.StringMatcher) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m}
}

// validation checks a peer against the trust bundle (a secret of the ADS stream) and its SPIFFE ID against sans.
// Without sans nobody passes: an empty list must never mean "anyone that the bundle vouches for".
func validation(
	bundleSecret string, sans []*tlsv3.SubjectAltNameMatcher,
) *tlsv3.CommonTlsContext_CombinedValidationContext {
	if len(sans) == 0 {
		sans = SPIFFEIDs("spiffe://none")
	}
	return &tlsv3.CommonTlsContext_CombinedValidationContext{
		CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
			DefaultValidationContext: &tlsv3.CertificateValidationContext{MatchTypedSubjectAltNames: sans},
			ValidationContextSdsSecretConfig: &tlsv3.SdsSecretConfig{
				Name: bundleSecret, SdsConfig: ADS(0),
			},
		},
	}
}

// MTLSServer is the transport socket of an mTLS listener: the certificate is the secret named certSecret, and a client
// certificate that satisfies sans is required. The listener waits for the secret.
func MTLSServer(certSecret, bundleSecret string, sans []*tlsv3.SubjectAltNameMatcher) *corev3.TransportSocket {
	return mtlsServer(&tlsv3.CommonTlsContext{
		TlsParams: tlsParameters(),
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{
			{Name: certSecret, SdsConfig: ADS(0)},
		},
		ValidationContextType: validation(bundleSecret, sans),
	})
}

// MTLSServerOnDemand is MTLSServer for an Envoy that also uses MTLSClientOnDemand: it must fetch a secret in one of
// the two ways only, because the other request for the same name would never be answered (the stream is subscribed to
// it already). The listener starts without the secret; handshakes wait for it.
func MTLSServerOnDemand(certSecret, bundleSecret string, sans []*tlsv3.SubjectAltNameMatcher) *corev3.TransportSocket {
	return mtlsServer(&tlsv3.CommonTlsContext{
		TlsParams: tlsParameters(),
		CustomTlsCertificateSelector: onDemandSecret(
			Extension("envoy.tls.certificate_mappers.static_name", &staticnamev3.StaticName{Name: certSecret}), certSecret),
		ValidationContextType: validation(bundleSecret, sans),
	})
}

// mtlsServer never resumes sessions: a resumed one would outlive a change of the trust bundle.
func mtlsServer(c *tlsv3.CommonTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: transportTLS,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Any(&tlsv3.DownstreamTlsContext{
			RequireClientCertificate: Bool(true),
			CommonTlsContext:         c,
			SessionTicketKeysType: &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{
				DisableStatelessSessionResumption: true,
			},
			DisableStatefulSessionResumption: true,
		})},
	}
}

// onDemandSecret asks for the secret that the mapper names, at the first handshake that needs it or ahead.
func onDemandSecret(mapper *corev3.TypedExtensionConfig, ahead ...string) *corev3.TypedExtensionConfig {
	return Extension("envoy.tls.certificate_selectors.on_demand_secret", &certselectorv3.Config{
		ConfigSource:        ADS(0),
		CertificateMapper:   mapper,
		PrefetchSecretNames: ahead,
	})
}

// MTLSClient is the transport socket of an mTLS connection whose client certificate is the secret named certSecret. The
// peer is asked for the endpoint's host name.
func MTLSClient(certSecret, bundleSecret string, sans []*tlsv3.SubjectAltNameMatcher) *corev3.TransportSocket {
	return mtlsClient("", &tlsv3.CommonTlsContext{
		TlsParams: tlsParameters(),
		TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{
			{Name: certSecret, SdsConfig: ADS(0)},
		},
		ValidationContextType: validation(bundleSecret, sans),
	})
}

// MTLSClientOnDemand is MTLSClient for a cluster that many identities share: the secret's name is the downstream
// connection's filter state FilterStateCertificate, fetched at the first handshake that needs it. The peer is asked for
// serverName, or for the endpoint's host name where that is empty.
func MTLSClientOnDemand(bundleSecret, serverName string, sans []*tlsv3.SubjectAltNameMatcher) *corev3.TransportSocket {
	return mtlsClient(serverName, &tlsv3.CommonTlsContext{
		TlsParams: tlsParameters(),
		CustomTlsCertificateSelector: onDemandSecret(
			Extension("envoy.tls.upstream_certificate_mappers.filter_state_override", &mapperv3.Config{DefaultValue: noSecret})),
		ValidationContextType: validation(bundleSecret, sans),
	})
}

// mtlsClient never resumes sessions: a session belongs to one client identity, and the cluster serves many.
func mtlsClient(serverName string, c *tlsv3.CommonTlsContext) *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name: transportTLS,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Any(&tlsv3.UpstreamTlsContext{
			CommonTlsContext: c,
			Sni:              serverName,
			AutoHostSni:      serverName == "",
			MaxSessionKeys:   UInt32(0),
		})},
	}
}

// AnsweringAsThemselves are who may answer at a transport socket of MTLSClientOnDemand that asks endpoints for ports of
// their own.
func AnsweringAsThemselves(socket *corev3.TransportSocket) (sans []*tlsv3.SubjectAltNameMatcher, ok bool) {
	c := &tlsv3.UpstreamTlsContext{}
	if socket.GetName() != transportTLS || socket.GetTypedConfig().UnmarshalTo(c) != nil || !c.GetAutoHostSni() {
		return nil, false
	}
	v := c.GetCommonTlsContext().GetCombinedValidationContext().GetDefaultValidationContext()
	return v.GetMatchTypedSubjectAltNames(), true
}

// WayPlaintext is the way of an endpoint that is reached in plain.
const WayPlaintext = "plaintext"

// keyWay is where an endpoint's metadata have its way.
const keyWay = "way"

// ReachedBy is metadata by which an endpoint says its way, under MetadataSocketMatch.
func ReachedBy(way string) map[string]string { return map[string]string{keyWay: way} }

// OnWay is the transport socket for endpoints of a way. Others get that of the next match, and in the end the cluster's
// own.
func OnWay(name, way string, socket *corev3.TransportSocket) *clusterv3.Cluster_TransportSocketMatch {
	return &clusterv3.Cluster_TransportSocketMatch{Name: name, Match: Struct(ReachedBy(way)), TransportSocket: socket}
}

// InPlain is OnWay for WayPlaintext.
func InPlain() *clusterv3.Cluster_TransportSocketMatch {
	return OnWay(WayPlaintext, WayPlaintext, Raw())
}

// Raw is the transport socket without TLS.
func Raw() *corev3.TransportSocket {
	return &corev3.TransportSocket{
		Name:       transportRaw,
		ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: Any(&rawv3.RawBuffer{})},
	}
}
