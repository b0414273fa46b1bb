// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counting

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// plain is what Envoy tells of a connection in plain text.
func plain(t testing.TB, pod, from, verdict string) *accesslogdatav3.AccessLogCommon {
	t.Helper()
	state := map[string]*anypb.Any{}
	for key, value := range map[string]string{names.FilterStatePod: pod, names.FilterStateVerdict: verdict} {
		packed, err := anypb.New(wrapperspb.String(value))
		require.NoError(t, err)
		state[key] = packed
	}
	return &accesslogdatav3.AccessLogCommon{
		FilterStateObjects: state,
		DownstreamDirectRemoteAddress: &corev3.Address{Address: &corev3.Address_SocketAddress{
			SocketAddress: &corev3.SocketAddress{Address: from},
		}},
	}
}

// TestCountsAreBounded: sources beyond what is told apart count together, and what is idle makes room.
func TestCountsAreBounded(t *testing.T) {
	now := time.Now()
	c := NewCounter()
	c.now = func() time.Time { return now }
	for n := range counts.MaxSources + 30 {
		c.connection(plain(t, "shop/web-0", fmt.Sprintf("10.0.%d.1", n), ""))
	}
	byCaller := map[string]uint64{}
	for _, n := range c.Take(true) {
		byCaller[n.Source] = n.Value
	}
	require.Len(t, byCaller, counts.MaxSources+1)
	require.EqualValues(t, 30, byCaller[counts.Others])
	for n := range 2 * counts.MaxSeries {
		c.connection(plain(t, fmt.Sprint("shop/web-", n), "10.0.0.1", ""))
	}
	require.Len(t, c.all, counts.MaxSeries/(counts.PerFreeOfProxy+1))
	for n := range 10 { // pods of others on the node
		c.connection(plain(t, fmt.Sprint("other/web-", n), "10.0.0.1", ""))
	}
	require.Len(t, c.all, counts.MaxSeries/(counts.PerFreeOfProxy+1)+10)
	c.Take(false)
	now = now.Add(counts.Idle)
	c.Take(false)
	require.Empty(t, c.all)
	require.Empty(t, c.sources)
	c.connection(plain(t, "shop/web-0", "::ffff:10.0.0.1", ""))
	c.connection(plain(t, "", "10.0.0.1", ""))
	all := c.Take(false)
	require.Len(t, all, 1)
	require.Equal(t, "10.0.0.1", all[0].Source)
}

// operator takes reports, of proxies that its authenticator lets in.
type operator struct {
	book *counts.Book
	auth func() error

	mu    sync.Mutex
	added map[counts.Series]uint64
	from  counts.Source
}

func newOperator(t testing.TB) (*operator, *grpc.ClientConn) {
	t.Helper()
	o := &operator{book: counts.NewBook(), auth: func() error { return nil }, added: map[counts.Series]uint64{}}
	g := grpc.NewServer()
	counts.NewServer(xds.AuthenticatorFunc(func(context.Context) (xds.Proxy, error) {
		return xds.Proxy{Scope: "node/n1", PodUID: "uid"}, o.auth()
	}), func(from counts.Source, told []counts.Count) {
		o.mu.Lock()
		defer o.mu.Unlock()
		o.from = from
		for _, g := range o.book.Take(from, told) {
			o.added[g.Series] += g.Added
		}
	}).Register(g)
	pipe := bufconn.Listen(1 << 20)
	go func() { _ = g.Serve(pipe) }()
	t.Cleanup(g.Stop)
	conn, err := grpc.NewClient("passthrough:///pipe", grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return pipe.DialContext(ctx) }))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	return o, conn
}

// TestTheOperatorIsTold: once of each, and of all of it by whoever is connected anew.
func TestTheOperatorIsTold(t *testing.T) {
	o, conn := newOperator(t)
	c := NewCounter()
	for range 3 {
		c.connection(plain(t, "shop/web-0", "10.0.0.1", "DENY shop/x rule 0"))
	}
	r := &Reporter{
		Counter: c, every: 10 * time.Millisecond, Log: logr.Discard(),
		Connected: func() (time.Time, bool) { return time.Unix(1, 0), true },
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, conn) }()
	want := map[counts.Series]uint64{
		{Kind: counts.Refused, Destination: "shop/web-0", Verdict: "DENY shop/x rule 0", Anonymous: true}: 3,
		{Kind: counts.Strict, Destination: "shop/web-0", Source: "10.0.0.1", Anonymous: true}:             3,
	}
	eventually.Passes(t, "it is told", func(look require.TestingT) {
		o.mu.Lock()
		defer o.mu.Unlock()
		require.Equal(look, want, o.added)
		require.Equal(look, counts.Source{Scope: "node/n1", Proxy: "uid"}, o.from)
	})
	cancel()
	require.ErrorIs(t, <-done, context.Canceled)
}

// TestReportsThatAreRefused: by strangers, and by who reports all the time.
func TestReportsThatAreRefused(t *testing.T) {
	o, conn := newOperator(t)
	c := NewCounter()
	c.connection(plain(t, "shop/web-0", "10.0.0.1", ""))
	client := clientOf(conn)
	require.NoError(t, send(t.Context(), client, c.Take(true)))
	require.ErrorContains(t, send(t.Context(), client, c.Take(true)), "at most")
	o.auth = func() error { return errors.New("no token") }
	require.ErrorContains(t, send(t.Context(), client, c.Take(true)), "no token")
	require.NoError(t, send(t.Context(), client, nil), "nothing is said")
}

// TestPortsOfClusters: a port counts as one, by whichever cluster a waypoint sends to it.
func TestPortsOfClusters(t *testing.T) {
	port := names.ServicePort("shop", "web", 443)
	for _, cluster := range []string{
		port, names.TLSPort("shop", "web", 443), names.InboundCluster("shop", "web", 443),
	} {
		require.Equal(t, port, portOf(cluster))
	}
	for _, cluster := range []string{"", names.ClusterTunnel, "xds", "tls/shop/web"} {
		require.Empty(t, portOf(cluster))
	}
}
