// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/serve"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// serveXDS serves delta ADS, and takes in what proxies count, until the context ends. Streams are cut then: every proxy
// goes on with what it has and finds another replica.
func serveXDS(ctx context.Context, s *xds.Server, c *counts.Server, cfg *tls.Config, listening func()) error {
	g := newXDSServer(s, cfg, xdsPatience)
	c.Register(g)
	var lc net.ListenConfig
	ln, err := lc.Listen(ctx, "tcp", fmt.Sprintf(":%d", names.PortXDS))
	if err != nil {
		return fmt.Errorf("listen for xDS: %w", err)
	}
	listening()
	return serve.GRPC(ctx, g, accept.Limit(ln, accept.MaxConnections, accept.MaxPerPeer))
}

// patience with connections on which nobody has proved yet who asks: for TLS and the start of HTTP/2 together, and for
// one without a stream. A proxy's agent opens its only stream at once.
type patience struct{ handshake, idle time.Duration }

var xdsPatience = patience{handshake: 10 * time.Second, idle: 30 * time.Second}

const (
	// maxXDSStreams of one connection; an agent needs one, and another one now and then to tell what it has counted.
	maxXDSStreams = 8
	// maxXDSHeaders is how much a stream's headers may hold in bytes; the token is most of it.
	maxXDSHeaders = 32 << 10
)

func newXDSServer(s *xds.Server, cfg *tls.Config, p patience) *grpc.Server {
	cfg = cfg.Clone()
	cfg.NextProtos = []string{"h2"}
	g := grpc.NewServer(append(xds.GRPCOptions(p.idle), grpc.Creds(credentials.NewTLS(cfg)),
		grpc.ConnectionTimeout(p.handshake), grpc.MaxConcurrentStreams(maxXDSStreams),
		grpc.MaxHeaderListSize(maxXDSHeaders))...)
	s.Register(g)
	return g
}
