// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package control

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
)

const (
	connectTimeout    = 5 * time.Second
	keepaliveInterval = 20 * time.Second
	keepaliveTimeout  = 10 * time.Second
)

// reconnect stays well below the time for which a proxy's connections wait for the operator.
var reconnect = backoff.Config{BaseDelay: 200 * time.Millisecond, Multiplier: 2, MaxDelay: 3 * time.Second, Jitter: 0.5}

// DialGRPC makes a client connection to a gRPC target over TLS, with the bearer token on each call. It does not connect
// yet.
func (o *Operator) DialGRPC(target string) (*grpc.ClientConn, error) {
	conn, err := grpc.NewClient(target,
		grpc.WithTransportCredentials(&transport{
			// Info and the protocol of this one are right; its handshake is never used.
			TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}),
			operator:             o,
		}),
		grpc.WithPerRPCCredentials(token{o}),
		grpc.WithAuthority(o.serverName),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{
			Time: keepaliveInterval, Timeout: keepaliveTimeout, PermitWithoutStream: true,
		}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout, Backoff: reconnect}),
	)
	if err != nil {
		return nil, fmt.Errorf("operator address %q: %w", target, err)
	}
	return conn, nil
}

// transport asks anew for each handshake whom to trust.
type transport struct {
	credentials.TransportCredentials
	operator *Operator
}

// ClientHandshake implements credentials.TransportCredentials.
func (t *transport) ClientHandshake(
	ctx context.Context, authority string, conn net.Conn,
) (net.Conn, credentials.AuthInfo, error) {
	config, err := t.operator.TLS()
	if err != nil {
		return nil, nil, err
	}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (t *transport) Clone() credentials.TransportCredentials {
	return &transport{TransportCredentials: t.TransportCredentials.Clone(), operator: t.operator}
}

// token is the operator's, asked for at each call.
type token struct{ operator *Operator }

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (t token) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	bearer, err := t.operator.Token()
	if err != nil {
		return nil, err
	}
	return map[string]string{"authorization": "Bearer " + bearer}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: a token never goes over plaintext.
func (token) RequireTransportSecurity() bool { return true }
