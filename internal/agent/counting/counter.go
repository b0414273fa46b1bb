// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counting

import (
	"context"
	"errors"
	"io"
	"net/netip"
	"strings"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/service/accesslog/v3"
	"google.golang.org/grpc"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Counter is the access log service of the Envoy beside the agent. What it counts is bounded: beyond that it counts
// sources together, and then nothing.
type Counter struct {
	accesslogv3.UnimplementedAccessLogServiceServer
	// Open is told which connections to pods come, are open and end; nil: nobody is.
	Open func(line *accesslogdatav3.AccessLogCommon, plaintext bool)
	// UnknownKey is told of tokens whose keys Envoy doesn't know; nil: nobody is. It is set before Register.
	UnknownKey func(context.Context)
	now        func() time.Time

	mu  sync.Mutex
	all map[counts.Series]*counts.Count
	// room is shared by the namespaces of destinations.
	room *counts.Room[string]
	// sources has the number of sources that are told apart, by destination.
	sources map[string]int
	// changed since they were taken last.
	changed map[counts.Series]struct{}
}

// NewCounter has counted nothing.
func NewCounter() *Counter {
	return &Counter{
		now: time.Now, all: map[counts.Series]*counts.Count{}, sources: map[string]int{},
		changed: map[counts.Series]struct{}{}, room: counts.NewRoom[string](counts.MaxSeries, counts.PerFreeOfProxy),
	}
}

// Register makes it reachable.
func (c *Counter) Register(g grpc.ServiceRegistrar) { accesslogv3.RegisterAccessLogServiceServer(g, c) }

// StreamAccessLogs takes in what one thread of Envoy tells.
func (c *Counter) StreamAccessLogs(s accesslogv3.AccessLogService_StreamAccessLogsServer) error {
	connection := c.connection
	for {
		m, err := s.Recv()
		switch {
		case errors.Is(err, io.EOF):
			return s.SendAndClose(&accesslogv3.StreamAccessLogsResponse{})
		case err != nil:
			return err
		}
		switch m.GetIdentifier().GetLogName() { // the first message of a stream says it
		case names.LogMTLS:
			connection = c.mtls
		case names.LogPlaintext:
			connection = c.opened
		}
		for _, e := range m.GetTcpLogs().GetLogEntry() {
			connection(e.GetCommonProperties())
		}
		unknown := false
		for _, e := range m.GetHttpLogs().GetLogEntry() {
			if strings.HasPrefix(e.GetResponse().GetResponseCodeDetails(), envoy.UnknownKey) {
				unknown = true
				continue
			}
			c.request(e.GetCommonProperties())
		}
		if unknown && c.UnknownKey != nil {
			c.UnknownKey(s.Context())
		}
	}
}

// mtls are counted by lines of their own.
func (c *Counter) mtls(p *accesslogdatav3.AccessLogCommon) {
	if c.Open != nil {
		c.Open(p, false)
	}
}

// opened is a connection in plain text, which is counted when it ends.
func (c *Counter) opened(p *accesslogdatav3.AccessLogCommon) {
	if c.Open != nil {
		c.Open(p, true)
	}
	if p.GetAccessLogType() == accesslogdatav3.AccessLogType_TcpConnectionEnd {
		c.connection(p)
	}
}

// connection counts one that was tried, or came in plain text.
func (c *Counter) connection(p *accesslogdatav3.AccessLogCommon) {
	pod, verdict := envoy.StateText(p, names.FilterStatePod), envoy.StateText(p, names.FilterStateVerdict)
	tried := envoy.StateText(p, names.FilterStateDryRun)
	who := envoy.PeerIdentity(p)
	if who == "" && pod != "" {
		c.plaintext(p, pod, verdict)
	}
	to := pod
	if to == "" {
		to = portOf(names.PrefixInboundCluster + p.GetTlsProperties().GetTlsSniHostname())
	}
	if verdict == "" && tried != "" {
		c.add(counts.Series{Kind: counts.Tried, Destination: to, Verdict: tried, Anonymous: who == ""}, p)
	}
}

// plaintext counts a caller without identity. A pod that takes none has no verdict, and no address to connect to.
func (c *Counter) plaintext(p *accesslogdatav3.AccessLogCommon, pod, verdict string) {
	s := counts.Series{Kind: counts.Plaintext, Destination: pod, Source: address(p), Anonymous: true}
	switch {
	case p.GetFilterStateObjects()[names.FilterStateVerdict] == nil:
		s.Kind = counts.Strict
	case verdict != "":
		s.Kind = counts.Strict
		c.add(counts.Series{Kind: counts.Refused, Destination: pod, Verdict: verdict, Anonymous: true}, p)
	}
	c.add(s, p)
}

// request counts one that was tried.
func (c *Counter) request(p *accesslogdatav3.AccessLogCommon) {
	left := p.GetMetadata().GetFilterMetadata()[envoy.MetadataRBAC].GetFields()
	verdict := left[envoy.DryRunPrefix+envoy.ShadowPolicy].GetStringValue()
	if left[envoy.DryRunPrefix+envoy.ShadowResult].GetStringValue() != envoy.ShadowDenied {
		verdict = counts.ByExpressions
	}
	c.add(counts.Series{
		Kind: counts.Tried, Destination: portOf(p.GetUpstreamCluster()), Verdict: verdict, Requests: true,
	}, p)
}

func (c *Counter) add(s counts.Series, p *accesslogdatav3.AccessLogCommon) {
	s.Destination, s.Verdict = counts.Text(s.Destination), counts.Text(s.Verdict)
	if s.Destination == "" {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	if c.all[s] == nil && s.Source != "" && c.sources[s.Destination] >= counts.MaxSources {
		s.Source = counts.Others
	}
	n := c.all[s]
	if n == nil {
		if !c.room.Has(s.Namespace()) {
			return
		}
		c.room.Take(s.Namespace())
		n = &counts.Count{Series: s, Since: now}
		c.all[s] = n
		if s.Source != "" && s.Source != counts.Others {
			c.sources[s.Destination]++
		}
	}
	n.Value++
	n.Last, n.Caller = now, counts.Text(envoy.PeerIdentity(p))
	if n.Caller == "" {
		n.Caller = address(p)
	}
	c.changed[s] = struct{}{}
}

// Take is what has changed since the last time, or all there is; what nothing was added to for long goes.
func (c *Counter) Take(all bool) (out []counts.Count) {
	c.mu.Lock()
	defer c.mu.Unlock()
	now := c.now()
	for s, n := range c.all {
		if _, changed := c.changed[s]; changed || all {
			out = append(out, *n)
			continue
		}
		if now.Sub(n.Last) < counts.Idle {
			continue
		}
		delete(c.all, s)
		c.room.Give(s.Namespace())
		if s.Source != "" && s.Source != counts.Others {
			if c.sources[s.Destination]--; c.sources[s.Destination] == 0 {
				delete(c.sources, s.Destination)
			}
		}
	}
	clear(c.changed)
	return out
}

// portOf is the Service's port that a waypoint's cluster leads to; "" for any other name.
func portOf(cluster string) string {
	if strings.HasPrefix(cluster, names.PrefixInboundCluster) {
		if ns, service, port, ok := names.ParseInboundCluster(cluster); ok {
			return names.ServicePort(ns, service, port)
		}
		return ""
	}
	if _, _, _, ok := names.ParseServicePort(cluster, "service"); ok {
		return cluster
	}
	if ns, service, port, ok := names.ParseServicePort(cluster, names.PrefixTLS); ok {
		return names.ServicePort(ns, service, port)
	}
	return ""
}

// address of the connection's caller.
func address(p *accesslogdatav3.AccessLogCommon) string {
	a := p.GetDownstreamDirectRemoteAddress()
	if a == nil {
		a = p.GetDownstreamRemoteAddress()
	}
	return unmapped(a)
}

func unmapped(a *corev3.Address) string {
	addr, err := netip.ParseAddr(a.GetSocketAddress().GetAddress())
	if err != nil {
		return counts.Others
	}
	return addr.Unmap().WithZone("").String()
}
