// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/testca"
	"github.com/fairway-mesh/fairway/test/streamtest"
)

// securelyInAndOut are inAndOut where the application speaks TLS.
func (w *world) securelyInAndOut(serve func(*tls.Conn)) map[string]model.ServicePort {
	w.t.Helper()
	authority := testca.New(w.t, "example.org")
	config := &tls.Config{
		MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{authority.IssueHost(secureHost)},
	}
	listen := func() model.Endpoint {
		return model.Endpoint{Address: w.listen(func(c *net.TCPConn) {
			s := tls.Server(c, config)
			if s.Handshake() == nil {
				serve(s)
			}
		})}
	}
	in := model.ServicePort{Namespace: "shop", Service: "in", Port: 443}
	out := model.ServicePort{Namespace: "shop", Service: "out", Port: 443}
	said := &model.BackendTLS{Hostname: secureHost, Hosts: []string{secureHost}, CAs: string(authority.PEM())}
	e, _ := w.inMesh(appID, listen().Address)
	w.secure(model.Upstream{ServicePort: in, TLS: said}, e)
	w.secure(model.Upstream{ServicePort: out, TLS: said}, listen())
	return map[string]model.ServicePort{"in the mesh": in, "outside": out}
}

// TestBackendTLSBodies: bodies of all sizes arrive whole, both ways, however slowly they are read.
func TestBackendTLSBodies(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.securelyInAndOut(func(c *tls.Conn) {
		in := bufio.NewReader(c)
		for {
			r, err := http.ReadRequest(in)
			if err != nil {
				return
			}
			n, sum, err := streamtest.Sums(r.Body)
			if err != nil {
				return
			}
			_, _ = fmt.Fprintf(c, "HTTP/1.1 200 OK\r\nSum: %d %x\r\nContent-Length: %d\r\n\r\n", n, sum, n)
			_, _ = io.Copy(c, streamtest.Random(int(n)))
		}
	}) {
		client := w.caller(clientID).client(t, w.serve(p, true, &model.RouteTable{TLS: true}), nil)
		var g errgroup.Group
		for _, size := range []int{0, 1, 100 << 10, 1 << 20, 20 << 20} {
			for _, pause := range pauses {
				g.Go(func() error {
					want, sum, _ := streamtest.Sums(streamtest.Random(size))
					r, err := client.Post("http://web/", "application/octet-stream", streamtest.Random(size))
					if err != nil {
						return err
					}
					defer func() { _ = r.Body.Close() }()
					time.Sleep(pause) // the caller is slow: nothing to wait for
					n, got, err := streamtest.Sums(r.Body)
					if said := r.Header.Get("Sum"); err != nil || n != want || got != sum || said != fmt.Sprintf("%d %x", n, sum) {
						return fmt.Errorf("%s, %d bytes: %d came back, %w", name, size, n, err)
					}
					return nil
				})
			}
		}
		require.NoError(t, g.Wait())
	}
}

// TestBackendTLSCuts: an answer that is cut is one to its caller, and a caller who sends to an application that is gone
// hears of it at once.
func TestBackendTLSCuts(t *testing.T) {
	w := newWorld(t)
	for name, p := range w.securelyInAndOut(func(c *tls.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		if r.Method == http.MethodGet {
			_, _ = io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 100000\r\n\r\npart")
		} else {
			_, _ = io.CopyN(io.Discard, r.Body, 1<<20)
		}
		_ = c.NetConn().(*net.TCPConn).SetLinger(0)
		_ = c.NetConn().Close()
	}) {
		t.Run(name, func(t *testing.T) {
			client := w.caller(clientID).client(t, w.serve(p, true, &model.RouteTable{TLS: true}), nil)
			w.hurry()
			before := w.descriptors()
			for range 5 {
				if r, err := client.Get("http://web/"); err == nil && r.StatusCode == http.StatusOK {
					_, err = io.ReadAll(r.Body)
					require.Error(t, err)
				}
				began := time.Now()
				r, err := client.Post("http://web/", "application/octet-stream", streamtest.Random(64<<20))
				if err == nil {
					require.GreaterOrEqual(t, r.StatusCode, 500)
					_ = r.Body.Close()
				}
				require.Less(t, time.Since(began), 10*hurried)
			}
			client.CloseIdleConnections()
			eventually.True(t, "connections to applications that are gone to end", func() bool {
				return w.descriptors() <= before
			})
		})
	}
}

// BenchmarkBackendTLS tells what a request costs the proxy, in microseconds of CPU, with and without TLS to the
// application: on kept connections, and with one of its own for each. In turn, for the machine is not always as fast.
func BenchmarkBackendTLS(b *testing.B) {
	w := newWorld(b)
	authority := testca.New(b, "example.org")
	cases := map[string]*http.Client{}
	add := func(name string, number uint16, e model.Endpoint, secure bool) {
		p := model.ServicePort{Namespace: "shop", Service: "bench", Port: number}
		if secure {
			w.secure(model.Upstream{ServicePort: p, Protocol: model.ProtocolHTTP, TLS: &model.BackendTLS{
				Hostname: secureHost, Hosts: []string{secureHost}, CAs: string(authority.PEM()),
			}}, e)
		} else {
			w.backend(p, model.ProtocolHTTP, e)
		}
		cases[name] = w.caller(clientID).client(b, w.serve(p, true, &model.RouteTable{TLS: secure}), nil)
	}
	for n, kept := range []bool{true, false} {
		name, first := map[bool]string{true: "", false: "_new"}[kept], uint16(10*n)
		var app http.Handler = &echo{}
		if !kept {
			app = http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Connection", "close") })
		}
		plain, _ := w.pod(appID, app)
		add("mesh"+name, first+1, plain, false)
		add("outside"+name, first+3, model.Endpoint{Address: w.app(app)}, false)
		for place, in := range w.places() {
			a, e := in(authority.IssueHost(secureHost))
			a.close = !kept
			if place == "outside" {
				add("outside_tls"+name, first+4, e, true)
			} else {
				add("mesh_tls"+name, first+2, e, true)
			}
		}
	}
	const requests = 2000
	cost := map[string][]float64{}
	for range b.N {
		for name, client := range cases {
			before := w.cpu()
			for range requests {
				resp, err := client.Get("http://web/")
				require.NoError(b, err)
				require.Equal(b, http.StatusOK, resp.StatusCode)
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
			}
			cost[name] = append(cost[name], float64((w.cpu()-before).Microseconds())/requests)
		}
	}
	for name, all := range cost {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name+"-µs/request")
		b.Logf("%s: %.0f to %.0f", name, all[0], all[len(all)-1])
	}
}
