// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	caresv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/network/dns_resolver/cares/v3"
	"github.com/miekg/dns"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/eventually"
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
	return o.serve(p, true, &model.RouteTable{Attachment: model.Attachment{Port: p}, Default: rules})
}

func hostOf(name, host string, port uint16) model.ExternalHost {
	return model.ExternalHost{
		Name: types.NamespacedName{Namespace: "shop", Name: name}, Version: "1", Host: host, Port: port,
	}
}

// payServer is who answers in TLS by the name.
func (o *outside) payServer(ca *testca.CA, host string) (*secureApp, netip.AddrPort) {
	return o.secureApp(ca.IssueHost(host))
}

func verified(ca *testca.CA, host string) *model.BackendTLS {
	return &model.BackendTLS{Hostname: host, Hosts: []string{host}, CAs: string(ca.PEM())}
}

// TestExternal: requests leave for a host outside in TLS, verified, under that host's name, whatever host the caller
// asked for; and without what says who asks within the mesh.
func TestExternal(t *testing.T) {
	o := newOutside(t)
	ca, other := testca.New(t, "pay.example"), testca.New(t, "pay.example")
	cases := map[string]struct {
		tls  *model.BackendTLS
		cert tls.Certificate
		want int
	}{
		"verified":        {verified(ca, payHost), ca.IssueHost(payHost), 200},
		"wrong-name":      {verified(ca, payHost), ca.IssueHost("other.example"), 503},
		"wrong-authority": {verified(ca, payHost), other.IssueHost(payHost), 503},
		"other-san": {
			&model.BackendTLS{Hostname: payHost, Hosts: []string{"eu.pay.example"}, CAs: string(ca.PEM())},
			ca.IssueHost("eu.pay.example"), 200,
		},
	}
	var looked []string
	for what, c := range cases {
		app, address := o.secureApp(c.cert)
		host := what + ".example"
		o.dns.says(host, address.Addr())
		looked = append(looked, host+".")
		h := hostOf(what, host, address.Port())
		h.Secure = true
		b := o.external(model.External{ExternalHost: h, Protocol: model.ExternalNegotiated, TLS: c.tls})
		client := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, b)), nil)
		t.Run(what, func(t *testing.T) {
			r := do(t, client, http.MethodGet, "http://web/a", "Host", "elsewhere.example", "X-Forwarded-For", "9.9.9.9")
			require.Equal(t, c.want, r.status, r.body)
			if c.want != 200 {
				require.Zero(t, app.Requests.Load())
				return
			}
			require.Equal(t, payHost, app.asked.Load())
			require.Equal(t, h.Authority(), r.Host)
			for _, name := range []string{"X-Forwarded-Client-Cert", "X-Forwarded-For", "X-Forwarded-Proto"} {
				require.NotContains(t, r.Header, name)
			}
		})
	}
	require.ElementsMatch(t, looked, o.dns.names(), "no other name is looked up: no search domain, no caller's host")
}

var _ = x509.NewCertPool
var _ = eventually.True
