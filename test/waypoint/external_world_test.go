// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const payHost = "api.pay.example"

// resolver is a DNS server that answers as it is told.
type resolver struct {
	at netip.AddrPort

	mu      sync.Mutex
	answers map[string][]netip.Addr
	fails   bool
	asked   []string
}

func (w *world) resolver() *resolver {
	w.t.Helper()
	r := &resolver{answers: map[string][]netip.Addr{}}
	c, err := net.ListenPacket("udp", netip.AddrPortFrom(w.address(), 0).String())
	require.NoError(w.t, err)
	r.at = netip.MustParseAddrPort(c.LocalAddr().String())
	s := &dns.Server{PacketConn: c, Handler: r}
	go func() { _ = s.ActivateAndServe() }()
	w.t.Cleanup(func() { _ = s.Shutdown() })
	return r
}

func (r *resolver) ServeDNS(w dns.ResponseWriter, q *dns.Msg) {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := (&dns.Msg{}).SetReply(q)
	name := q.Question[0].Name
	r.asked = append(r.asked, name)
	all, known := r.answers[strings.TrimSuffix(name, ".")]
	switch {
	case r.fails:
		out.Rcode = dns.RcodeServerFailure
	case !known:
		out.Rcode = dns.RcodeNameError
	}
	for _, a := range all {
		header := dns.RR_Header{Name: name, Class: dns.ClassINET, Ttl: 1}
		switch {
		case r.fails:
		case a.Is4() && q.Question[0].Qtype == dns.TypeA:
			header.Rrtype = dns.TypeA
			out.Answer = append(out.Answer, &dns.A{Hdr: header, A: a.AsSlice()})
		case a.Is6() && q.Question[0].Qtype == dns.TypeAAAA:
			header.Rrtype = dns.TypeAAAA
			out.Answer = append(out.Answer, &dns.AAAA{Hdr: header, AAAA: a.AsSlice()})
		}
	}
	_ = w.WriteMsg(out)
}

// says what a name is from now on.
func (r *resolver) says(name string, is ...netip.Addr) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.answers[name], r.fails = is, false
}

func (r *resolver) fail() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.fails = true
}

// names that it was asked for so far, each once.
func (r *resolver) names() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Compact(slices.Sorted(slices.Values(r.asked)))
}

func (r *resolver) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.asked)
}

// outside is a waypoint with hosts outside. All of this machine's loopback addresses are outside, but for those of
// inside and what the tests refuse besides; else the ranges are those that every mesh refuses.
type outside struct {
	*world
	dns    *resolver
	inside []netip.Prefix
	next   uint16
}

func newOutside(t *testing.T) *outside {
	w := newWorld(t)
	o := &outside{world: w, dns: w.resolver(), next: 1000}
	o.inside = slices.DeleteFunc(ingest.RefusedRanges(nil, nil), func(p netip.Prefix) bool {
		return p.Contains(netip.MustParseAddr("127.0.0.1"))
	})
	return o
}

// clusterOf a host, which asks the test's resolver.
func (o *outside) clusterOf(e model.External) xds.Update {
	o.t.Helper()
	c := upstream.External(e, o.inside, headers)
	custom := c.GetClusterDiscoveryType().(*clusterv3.Cluster_ClusterType).ClusterType
	config := &dfpv3.ClusterConfig{}
	require.NoError(o.t, custom.GetTypedConfig().UnmarshalTo(config))
	cares := &caresv3.CaresDnsResolverConfig{}
	typed := config.GetDnsCacheConfig().GetTypedDnsResolverConfig()
	require.NoError(o.t, typed.GetTypedConfig().UnmarshalTo(cares))
	cares.Resolvers = []*corev3.Address{envoy.Address(o.dns.at)}
	typed.TypedConfig, custom.TypedConfig = envoy.Any(cares), nil
	custom.TypedConfig = envoy.Any(config)
	return resource(o.t, c.GetName(), c)
}

// external adds a host outside.
func (o *outside) external(e model.External) model.Backend {
	o.t.Helper()
	u := o.clusterOf(e)
	o.apply(u)
	o.acknowledged(u)
	return model.Backend{External: &e.ExternalHost, Weight: 1}
}

// port of a Service whose route leads to backends; the name to ask for.
func (o *outside) port(rules ...model.Rule) string {
	o.t.Helper()
	o.next++
	p := model.ServicePort{Namespace: "shop", Service: "payments", Port: o.next}
	return o.serve(p, true, &model.RouteTable{Attachment: model.Attachment{Port: p}, Default: pointers(rules)})
}

func hostOf(name, host string, port uint16) model.ExternalHost {
	return model.ExternalHost{
		Name: types.NamespacedName{Namespace: "shop", Name: name}, Version: "1", Host: host, Port: port,
	}
}

func verified(ca *testca.CA, host string) *model.BackendTLS {
	return &model.BackendTLS{Hostname: host, Hosts: []string{host}, CAs: string(ca.PEM())}
}

// tlsApp speaks TLS, and in it what it is told.
func (w *world) tlsApp(c tls.Certificate, h http.Handler, protocols ...string) netip.AddrPort {
	w.t.Helper()
	l, err := net.Listen("tcp", netip.AddrPortFrom(w.address(), 443).String())
	require.NoError(w.t, err)
	s := &http.Server{Handler: h, ReadHeaderTimeout: patience, Protocols: &http.Protocols{}, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{c},
	}}
	s.Protocols.SetHTTP1(slices.Contains(protocols, "http/1.1"))
	s.Protocols.SetHTTP2(slices.Contains(protocols, "h2"))
	go func() { _ = s.ServeTLS(l, "", "") }()
	w.t.Cleanup(func() { _ = s.Close() })
	return netip.MustParseAddrPort(l.Addr().String())
}

// plain is a host outside in plain text.
func (o *outside) plain(name, host string, port uint16) model.Backend {
	o.t.Helper()
	return o.external(model.External{ExternalHost: hostOf(name, host, port), Protocol: model.ExternalHTTP11})
}

// trap counts connections to an address that nobody is to connect to.
func (o *outside) trap(address netip.AddrPort) *atomic.Int64 {
	o.t.Helper()
	n := &atomic.Int64{}
	l, err := net.Listen("tcp", address.String())
	require.NoError(o.t, err)
	o.t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			n.Add(1)
			_ = c.Close()
		}
	}()
	return n
}
