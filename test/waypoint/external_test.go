// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/netip"
	"sync"
	"testing"

	dfpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/clusters/dynamic_forward_proxy/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

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

// TestExternalProtocols: what is spoken with the host is what its XBackend says.
func TestExternalProtocols(t *testing.T) {
	o := newOutside(t)
	ca := testca.New(t, "pay.example")
	secure, plain := &echo{}, &echo{}
	both := o.tlsApp(ca.IssueHost(payHost), secure, "h2", "http/1.1")
	old := o.tlsApp(ca.IssueHost(payHost), secure, "http/1.1")
	clear := o.app(plain)
	for _, c := range []struct {
		what     string
		to       netip.AddrPort
		protocol model.ExternalProtocol
		tls      bool
		want     string
	}{
		{"negotiated-h2", both, model.ExternalNegotiated, true, "HTTP/2.0"},
		{"negotiated-h1", old, model.ExternalNegotiated, true, "HTTP/1.1"},
		{"h1", both, model.ExternalHTTP11, true, "HTTP/1.1"},
		{"h2", both, model.ExternalHTTP2, true, "HTTP/2.0"},
		{"h2c", clear, model.ExternalHTTP2, false, "HTTP/2.0"},
		{"clear", clear, model.ExternalHTTP11, false, "HTTP/1.1"},
		{"caller", clear, model.ExternalAsCaller, false, "HTTP/1.1"},
	} {
		host := c.what + ".example"
		o.dns.says(host, c.to.Addr())
		e := model.External{ExternalHost: hostOf(c.what, host, c.to.Port()), Protocol: c.protocol}
		if c.tls {
			e.Secure, e.TLS = true, verified(ca, payHost)
		}
		client := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, o.external(e))), nil)
		r := do(t, client, http.MethodGet, "http://web/")
		require.Equal(t, c.want, r.Proto, "%s: %s", c.what, r.body)
	}
}

// TestExternalIsNeverInside: a name that leads into the cluster, to the machine or to its cloud leads nowhere, from the
// beginning or later, alone or among others. Nobody there hears of a connection.
func TestExternalIsNeverInside(t *testing.T) {
	o := newOutside(t)
	pod := netip.AddrPortFrom(o.address(), 8080)
	o.inside = append(o.inside, netip.PrefixFrom(pod.Addr(), 32))
	trapped := o.trap(pod)
	app := &echo{}
	outside := o.app(app)
	for host, at := range map[string][]netip.Addr{
		"pod":      {pod.Addr()},
		"mapped":   {netip.AddrFrom16(pod.Addr().As16())},
		"metadata": {netip.MustParseAddr("169.254.169.254")},
		"private":  {netip.MustParseAddr("10.0.0.1"), netip.MustParseAddr("192.168.0.1"), netip.MustParseAddr("fd00::1")},
		"loopback": {netip.MustParseAddr("::1")},
		"nat64":    {netip.MustParseAddr("64:ff9b::7f00:1")},
		"nobody":   nil,
	} {
		o.dns.says(host+".example", at...)
		client := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, o.plain(host, host+".example", 8080))), nil)
		r := do(t, client, http.MethodGet, "http://web/")
		require.Equal(t, http.StatusServiceUnavailable, r.status, "%s: %s", host, r.body)
	}
	o.dns.says("both.example", pod.Addr(), outside.Addr())
	client := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, o.plain("both", "both.example", 8080))), nil)
	for range 20 {
		require.Equal(t, http.StatusOK, do(t, client, http.MethodGet, "http://web/").status)
	}

	o.dns.says("both.example", pod.Addr()) // rebinding
	before := o.dns.count()
	eventually.True(t, "further lookups of the name", func() bool { return o.dns.count() > before+4 })
	require.Equal(t, http.StatusOK, do(t, client, http.MethodGet, "http://web/").status, "what stood before stands")
	require.Zero(t, trapped.Load())
	require.EqualValues(t, 21, app.Requests.Load())
}

// TestExternalOfBothFamilies: a host with an address of IPv6 that can't be reached is reached by that of IPv4.
func TestExternalOfBothFamilies(t *testing.T) {
	o := newOutside(t)
	app := &echo{}
	o.dns.says("both.example", netip.MustParseAddr("2001:db8::1"), o.app(app).Addr())
	client := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, o.plain("both", "both.example", 8080))), nil)
	for range 3 {
		r := do(t, client, http.MethodPost, "http://web/")
		require.Equal(t, http.StatusOK, r.status, r.body)
	}
}

// TestExternalWithoutDNS: where DNS fails, what was known stays; what wasn't is refused, and found once DNS is back.
func TestExternalWithoutDNS(t *testing.T) {
	o := newOutside(t)
	first, second := &echo{Name: "first"}, &echo{Name: "second"}
	once := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Connection", "close") // a connection stays where it is, whatever DNS says
		first.ServeHTTP(w, r)
	})
	o.dns.says("known.example", o.app(once).Addr())
	known := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, o.plain("known", "known.example", 8080))), nil)
	require.Equal(t, "first", do(t, known, http.MethodGet, "http://web/").Name)

	o.dns.fail()
	fresh := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, o.plain("fresh", "fresh.example", 8080))), nil)
	require.Equal(t, http.StatusServiceUnavailable, do(t, fresh, http.MethodGet, "http://web/").status)
	before := o.dns.count()
	eventually.True(t, "further lookups", func() bool { return o.dns.count() > before+8 })
	require.Equal(t, "first", do(t, known, http.MethodGet, "http://web/").Name)

	there := o.app(second).Addr()
	o.dns.says("known.example", there)
	o.dns.says("fresh.example", there)
	for _, client := range []*http.Client{known, fresh} {
		eventually.True(t, "an answer of the second host", func() bool {
			return do(t, client, http.MethodGet, "http://web/").Name == "second"
		})
	}
}

// TestNoCallerChoosesAHost: the cluster of a host outside would take the host that a request names, if its way did not
// say which it is. Where it doesn't, it leads nowhere.
func TestNoCallerChoosesAHost(t *testing.T) {
	o := newOutside(t)
	app := &echo{}
	o.dns.says("chosen.example", o.app(app).Addr())
	b := o.plain("pay", payHost, 8080)
	o.next++
	p := model.ServicePort{Namespace: "shop", Service: "payments", Port: o.next}
	all := pointers([]model.Rule{rule(model.Match{}, nil, b)})
	table := model.RouteTable{Attachment: model.Attachment{Port: p}, Default: all}
	dialled := o.serve(p, true, &table)
	client := o.caller(clientID).client(t, dialled, nil)
	rc, errs := route.Configuration(trustDomain, table)
	require.Empty(t, errs)
	for _, r := range rc.GetVirtualHosts()[0].GetRoutes() {
		if a := r.GetRoute(); a != nil {
			r.TypedPerFilterConfig, a.HostRewriteSpecifier = nil, nil
		}
	}
	u := resource(t, rc.GetName(), rc)
	o.apply(u)
	o.acknowledged(u)
	r := do(t, client, http.MethodGet, "http://web/", "Host", "chosen.example:8080")
	require.Equal(t, http.StatusServiceUnavailable, r.status, r.body)
	require.Equal(t, []string{"nowhere.invalid."}, o.dns.names())
	require.Zero(t, app.Requests.Load())
}

// TestNoSessionChoosesAHost: to Envoy a session may be with any host that a cluster knows, and clusters know those of
// others with the same cache of names. There are no sessions with hosts outside, so nobody forges one.
func TestNoSessionChoosesAHost(t *testing.T) {
	o := newOutside(t)
	apps, hosts := map[string]*echo{}, []string{"open.example"}
	cacheOf := func(host string) string {
		c := upstream.External(model.External{ExternalHost: hostOf("x", host, 8080)}, o.inside, headers)
		config := &dfpv3.ClusterConfig{}
		require.NoError(t, c.GetClusterType().GetTypedConfig().UnmarshalTo(config))
		return config.GetDnsCacheConfig().GetName()
	}
	for n := 0; len(hosts) < 2; n++ {
		if other := fmt.Sprintf("closed-%d.example", n); cacheOf(other) == cacheOf(hosts[0]) {
			hosts = append(hosts, other)
		}
	}
	var ways []model.Backend
	var at []netip.AddrPort
	for n, host := range hosts {
		apps[host] = &echo{Name: host}
		at = append(at, o.app(apps[host]))
		o.dns.says(host, at[n].Addr())
		ways = append(ways, o.plain(fmt.Sprint("host-", n), host, 8080))
	}
	home := &echo{Name: "home"}
	local := model.ServicePort{Namespace: "shop", Service: "local", Port: 80}
	o.backend(local, model.ProtocolHTTP, model.Endpoint{Address: o.app(home)})
	closed := o.caller(clientID).client(t, o.port(rule(model.Match{}, nil, ways[1])), nil)
	require.Equal(t, hosts[1], do(t, closed, http.MethodGet, "http://web/").Name)
	session := &model.SessionPersistence{Name: "stay"}
	alone, split := rule(model.Match{}, nil, ways[0]), rule(model.Match{}, nil, ways[0], to(local, 1))
	alone.SessionPersistence, split.SessionPersistence = session, session
	forged := "stay=" + base64.StdEncoding.EncodeToString([]byte(at[1].String()))
	for _, r := range []model.Rule{alone, split} {
		client := o.caller(clientID).client(t, o.port(r), nil)
		for range 20 {
			got := do(t, client, http.MethodGet, "http://web/", "Cookie", forged)
			require.Equal(t, http.StatusOK, got.status, got.body)
			require.NotEqual(t, hosts[1], got.Name)
		}
	}
	require.NotZero(t, apps[hosts[0]].Requests.Load())
}

// TestExternalChangesUnderLoad: each version of an XBackend is a cluster of its own, and requests move from one to the
// next without a failure, though Envoy ends a cluster of this type for all threads at once.
func TestExternalChangesUnderLoad(t *testing.T) {
	o := newOutside(t)
	app := &echo{}
	o.dns.says(payHost, o.app(app).Addr())
	b := o.plain("pay", payHost, 8080)
	o.next++
	p := model.ServicePort{Namespace: "shop", Service: "payments", Port: o.next}
	all := pointers([]model.Rule{rule(model.Match{}, nil, b)})
	table := model.RouteTable{Attachment: model.Attachment{Port: p}, Default: all}
	client := o.caller(clientID).client(t, o.serve(p, true, &table), nil)
	stop, failed := make(chan struct{}), make(chan string, 100)
	var running sync.WaitGroup
	load := func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			if r := do(t, client, http.MethodPost, "http://web/"); r.status != http.StatusOK {
				select {
				case failed <- fmt.Sprint(r.status, " ", r.body):
				default:
				}
			}
		}
	}
	for range 3 {
		running.Go(load)
	}
	var former []string
	old := o.clusterOf(model.External{ExternalHost: *b.External, Protocol: model.ExternalHTTP11})
	for n := range 10 {
		next := *b.External
		next.Version = fmt.Sprint("next-", n)
		u := o.clusterOf(model.External{ExternalHost: next, Protocol: model.ExternalHTTP11})
		table.Default = pointers([]model.Rule{rule(model.Match{}, nil, model.Backend{Weight: 1, External: &next})})
		routes := o.tableOf(table)
		o.apply(u, routes, xds.Gone(old.ID))
		o.acknowledged(u, routes)
		former, old = append(former, old.Name), u
	}
	o.gone(former...)
	close(stop)
	running.Wait()
	close(failed)
	for what := range failed {
		require.Fail(t, "a request failed", what)
	}
	require.Greater(t, app.Requests.Load(), int64(10))
	t.Log(app.Requests.Load(), "requests")
}

// TestExternalByWeightAndPolicy: a host outside has its share beside a Service, which keeps the caller's host; and who
// may ask for what is decided before anything of a request leaves.
func TestExternalByWeightAndPolicy(t *testing.T) {
	o := newOutside(t)
	away, home := &echo{Name: "away"}, &echo{Name: "home"}
	o.dns.says(payHost, o.app(away).Addr())
	local := model.ServicePort{Namespace: "shop", Service: "local", Port: 80}
	o.backend(local, model.ProtocolHTTP, model.Endpoint{Address: o.app(home)})
	guards := onRequests(accessPolicy("reads", false, fromAccount(clientID, pathIs(model.MatchPrefix, "/open"))))
	out := o.plain("pay", payHost, 8080)
	out.Guards = guards
	dialled := o.port(rule(model.Match{}, nil, out, to(local, 1)))
	client := o.caller(clientID).client(t, dialled, nil)
	got := map[string]string{}
	for range 100 {
		if r := do(t, client, http.MethodGet, "http://web/open", "Host", "web.example"); r.status == http.StatusOK {
			got[r.Name] = r.Host
		}
	}
	require.Equal(t, map[string]string{"away": payHost + ":8080", "home": "web.example"}, got)
	require.InDelta(t, 50, away.Requests.Load(), 30)

	alone := o.port(rule(model.Match{}, nil, out))
	before := away.Requests.Load()
	for id, path := range map[string]string{clientID: "/closed", otherID: "/open"} {
		r := do(t, o.caller(id).client(t, alone, nil), http.MethodGet, "http://web"+path)
		require.Equal(t, http.StatusForbidden, r.status, r.body)
	}
	require.Equal(t, before, away.Requests.Load())
	client = o.caller(clientID).client(t, alone, nil)
	require.Equal(t, http.StatusOK, do(t, client, http.MethodGet, "http://web/open").status)
}
