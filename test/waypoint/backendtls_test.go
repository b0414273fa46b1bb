// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const secureHost = "secure.example.org"

// secure has the waypoint speak TLS with the application behind a port, and serves the port where it isn't yet.
func (w *world) secure(u model.Upstream, endpoints ...model.Endpoint) {
	w.t.Helper()
	w.upstreams[u.ServicePort] = u
	updates := []xds.Update{
		resource(w.t, names.ClusterTunnel, upstream.Tunnel(waypointID)),
		resource(w.t, names.ListenerTunnel, waypoint.TunnelListener()),
		w.securely(u),
	}
	if !u.TLS.Refused {
		updates = append(updates, resource(w.t, names.TLSEndpoints(u.Namespace, u.Service, u.Port),
			upstream.TLSEndpoints(u.ServicePort, endpoints)))
	}
	w.apply(updates...)
	w.acknowledged(updates...)
}

// securely is the cluster alone.
func (w *world) securely(u model.Upstream) xds.Update {
	w.t.Helper()
	return resource(w.t, names.TLSPort(u.Namespace, u.Service, u.Port), upstream.TLSPort(u, headers))
}

// secureApp is an application that speaks TLS, and what it was asked for last.
type secureApp struct {
	echo
	close       bool // each connection after its first request
	certificate atomic.Pointer[tls.Certificate]
	asked       atomic.Value
}

func (a *secureApp) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if a.close {
		w.Header().Set("Connection", "close")
	}
	a.echo.ServeHTTP(w, r)
}

func (w *world) secureApp(c tls.Certificate) (*secureApp, netip.AddrPort) {
	w.t.Helper()
	a := &secureApp{}
	a.certificate.Store(&c)
	l, err := net.Listen("tcp", netip.AddrPortFrom(w.address(), 8443).String())
	require.NoError(w.t, err)
	s := &http.Server{Handler: a, ReadHeaderTimeout: patience, TLSConfig: &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetCertificate: func(h *tls.ClientHelloInfo) (*tls.Certificate, error) {
			a.asked.Store(h.ServerName)
			return a.certificate.Load(), nil
		},
	}}
	go func() { _ = s.ServeTLS(l, "", "") }()
	w.t.Cleanup(func() { _ = s.Close() })
	return a, netip.MustParseAddrPort(l.Addr().String())
}

// places are where an application may be: within the mesh, behind its pod's mTLS, and outside.
func (w *world) places() map[string]func(tls.Certificate) (*secureApp, model.Endpoint) {
	return map[string]func(tls.Certificate) (*secureApp, model.Endpoint){
		"in the mesh": func(c tls.Certificate) (*secureApp, model.Endpoint) {
			a, address := w.secureApp(c)
			newPod(w.t, address, w.ca.Issue(appID), peer(w.ca, waypointID))
			return a, model.Endpoint{Address: address, MTLS: true, Identity: appID}
		},
		"outside": func(c tls.Certificate) (*secureApp, model.Endpoint) {
			a, address := w.secureApp(c)
			return a, model.Endpoint{Address: address}
		},
	}
}

// TestBackendTLS: the application's certificate is verified, by name and authority, wherever the application is; what
// can't be verified is refused, and nothing is ever sent in plain text.
func TestBackendTLS(t *testing.T) {
	w := newWorld(t)
	authority, other := testca.New(t, "example.org"), testca.New(t, "example.org")
	tlsOf := func(hosts, uris []string, cas ...*testca.CA) *model.BackendTLS {
		out := &model.BackendTLS{Hostname: secureHost, Hosts: hosts, URIs: uris}
		for _, ca := range cas {
			out.CAs += string(ca.PEM())
		}
		return out
	}
	name := []string{secureHost}
	spiffe := "spiffe://example.org/app"
	withURI := func(c *x509.Certificate) {
		u, err := url.Parse(spiffe)
		require.NoError(t, err)
		c.URIs = []*url.URL{u}
	}
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-2*time.Hour), time.Now().Add(-time.Hour)
	}
	cases := map[string]struct {
		tls  *model.BackendTLS
		cert tls.Certificate
		want int
	}{
		"right":             {tlsOf(name, nil, authority), authority.IssueHost(secureHost), 200},
		"wildcard of certs": {tlsOf(name, nil, authority), authority.IssueHost("*.example.org"), 200},
		"wildcard of hosts": {tlsOf([]string{"*.example.org"}, nil, authority), authority.IssueHost(secureHost), 200},
		"second authority":  {tlsOf(name, nil, other, authority), authority.IssueHost(secureHost), 200},
		"second name": {
			tlsOf([]string{"a.example.org", secureHost}, nil, authority),
			authority.IssueHost(secureHost), 200,
		},
		"URI":             {tlsOf(nil, []string{spiffe}, authority), authority.IssueHost("x.test", withURI), 200},
		"wrong URI":       {tlsOf(nil, []string{spiffe + "2"}, authority), authority.IssueHost(secureHost, withURI), 503},
		"wrong name":      {tlsOf(name, nil, authority), authority.IssueHost("other.example.org"), 503},
		"not of hosts":    {tlsOf([]string{"*.example.org"}, nil, authority), authority.IssueHost("example.com"), 503},
		"wrong authority": {tlsOf(name, nil, other), authority.IssueHost(secureHost), 503},
		"expired":         {tlsOf(name, nil, authority), authority.IssueHost(secureHost, expired), 503},
		"refused":         {&model.BackendTLS{Refused: true}, authority.IssueHost(secureHost), 503},
	}
	number := uint16(1000)
	for place, in := range w.places() {
		for what, c := range cases {
			number++
			p := model.ServicePort{Namespace: "shop", Service: "secure", Port: number}
			app, e := in(c.cert)
			w.secure(model.Upstream{ServicePort: p, Protocol: model.ProtocolHTTP, TLS: c.tls}, e)
			table := &model.RouteTable{Attachment: model.Attachment{Port: p}, TLS: true}
			client := w.caller(clientID).client(t, w.serve(p, true, table), nil)
			t.Run(what+", "+place, func(t *testing.T) {
				r := do(t, client, http.MethodGet, "http://web/")
				require.Equal(t, c.want, r.status, r.body)
				if c.want == 200 {
					require.Equal(t, secureHost, app.asked.Load())
					require.Equal(t, "web", r.Host)
				} else {
					require.Zero(t, app.Requests.Load())
				}
			})
		}
	}
}

// TestBackendTLSWithoutTLS: an application that speaks plain text is sent nothing.
func TestBackendTLSWithoutTLS(t *testing.T) {
	w := newWorld(t)
	inside, outside := &echo{}, &echo{}
	e, _ := w.pod(appID, inside)
	endpoints := map[*echo]model.Endpoint{inside: e, outside: {Address: w.app(outside)}}
	authority := testca.New(t, "example.org")
	number := uint16(1000)
	for app, e := range endpoints {
		number++
		p := model.ServicePort{Namespace: "shop", Service: "secure", Port: number}
		w.secure(model.Upstream{ServicePort: p, TLS: &model.BackendTLS{
			Hostname: secureHost, Hosts: []string{secureHost}, CAs: string(authority.PEM()),
		}}, e)
		table := &model.RouteTable{Attachment: model.Attachment{Port: p}, TLS: true}
		client := w.caller(clientID).client(t, w.serve(p, true, table), nil)
		require.Equal(t, http.StatusServiceUnavailable, do(t, client, http.MethodGet, "http://web/").status)
		require.Zero(t, app.Requests.Load())
	}
}

// TestBackendTLSKeepsIdentity: TLS with the application doesn't replace that with its pod: who has another identity
// gets nothing, whatever certificate the application behind it has.
func TestBackendTLSKeepsIdentity(t *testing.T) {
	w := newWorld(t)
	authority := testca.New(t, "example.org")
	p := model.ServicePort{Namespace: "shop", Service: "secure", Port: 443}
	app, address := w.secureApp(authority.IssueHost(secureHost))
	newPod(t, address, w.ca.Issue(appID), peer(w.ca, waypointID))
	u := model.Upstream{ServicePort: p, TLS: &model.BackendTLS{
		Hostname: secureHost, Hosts: []string{secureHost}, CAs: string(authority.PEM()),
	}}
	w.secure(u, model.Endpoint{Address: address, MTLS: true, Identity: names.SPIFFEID(trustDomain, "shop", "other")})
	client := w.caller(clientID).client(t, w.serve(p, true, &model.RouteTable{TLS: true}), nil)
	require.Equal(t, http.StatusServiceUnavailable, do(t, client, http.MethodGet, "http://web/").status)
	require.Zero(t, app.Requests.Load())
	require.Nil(t, app.asked.Load(), "the application hears of no handshake")
	w.secure(u, model.Endpoint{Address: address, MTLS: true, Identity: appID})
	eventually.True(t, "an answer", func() bool { return do(t, client, http.MethodGet, "http://web/").status == 200 })
	w.accessLog(map[string]any{"status": "200", "destination": appID, "to": address.String()})
}

// TestBackendTLSRotates: another authority holds for the next connection, without a failure where both are trusted for
// a while.
func TestBackendTLSRotates(t *testing.T) {
	w := newWorld(t)
	before, after := testca.New(t, "example.org"), testca.New(t, "example.org")
	for place, in := range w.places() {
		t.Run(place, func(t *testing.T) {
			p := model.ServicePort{Namespace: "shop", Service: "secure", Port: uint16(443 + len(place))}
			app, e := in(before.IssueHost(secureHost))
			u := model.Upstream{ServicePort: p, TLS: &model.BackendTLS{
				Hostname: secureHost, Hosts: []string{secureHost}, CAs: string(before.PEM()),
			}}
			trust := func(cas string) {
				tls := *u.TLS
				tls.CAs, u.TLS = cas, &tls
				w.secure(u, e)
			}
			trust(string(before.PEM()))
			client := w.caller(clientID).client(t, w.serve(p, true, &model.RouteTable{TLS: true}), nil)
			get := func() int { return do(t, client, http.MethodGet, "http://web/").status }
			require.Equal(t, 200, get())
			trust(string(before.PEM()) + string(after.PEM()))
			require.Equal(t, 200, get())
			c := after.IssueHost(secureHost)
			app.certificate.Store(&c)
			eventually.True(t, "an answer by the new certificate", func() bool { return get() == 200 })
			trust(string(after.PEM()))
			eventually.True(t, "an answer by the new authority alone", func() bool { return get() == 200 })
			trust(string(before.PEM()))
			eventually.True(t, "a refusal", func() bool { return get() == 503 })
		})
	}
}

// TestBackendTLSBySystem: the authorities of the image, of which none vouches for a test's.
func TestBackendTLSBySystem(t *testing.T) {
	w := newWorld(t)
	for place, in := range w.places() {
		p := model.ServicePort{Namespace: "shop", Service: "secure", Port: uint16(443 + len(place))}
		app, e := in(testca.New(t, "example.org").IssueHost(secureHost))
		w.secure(model.Upstream{ServicePort: p, TLS: &model.BackendTLS{
			Hostname: secureHost, Hosts: []string{secureHost}, System: true,
		}}, e)
		client := w.caller(clientID).client(t, w.serve(p, true, &model.RouteTable{TLS: true}), nil)
		require.Equal(t, http.StatusServiceUnavailable, do(t, client, http.MethodGet, "http://web/").status)
		require.Zero(t, app.Requests.Load())
	}
}

// TestBackendTLSRejected: where proxies reject what a policy comes to, requests are refused, though the port was sent
// plain text before.
func TestBackendTLSRejected(t *testing.T) {
	w := newWorld(t)
	app := &echo{}
	e, _ := w.pod(appID, app)
	w.backend(web, model.ProtocolHTTP, e)
	client := w.caller(clientID).client(t, w.serve(web, true, nil), nil)
	require.Equal(t, http.StatusOK, do(t, client, http.MethodGet, "http://web/").status)
	bad := w.securely(model.Upstream{ServicePort: web, TLS: &model.BackendTLS{
		Hostname: secureHost, Hosts: []string{secureHost}, CAs: "no certificate",
	}})
	table := w.tableOf(model.RouteTable{
		Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, TLS: true,
	})
	w.apply(bad, table)
	eventually.True(t, "a rejection", func() bool {
		return w.server.State(scope.Key(bad.TypeURL, bad.Name)).Rejection() != ""
	})
	w.acknowledged(table)
	eventually.True(t, "a refusal", func() bool { return do(t, client, http.MethodGet, "http://web/").status == 503 })
	before := app.Requests.Load()
	for range 20 {
		require.Equal(t, http.StatusServiceUnavailable, do(t, client, http.MethodGet, "http://web/").status)
	}
	require.Equal(t, before, app.Requests.Load())
}
