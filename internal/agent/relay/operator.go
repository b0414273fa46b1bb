// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"os"
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

// Operator says how to reach the operator, and how each side proves who it is.
type Operator struct {
	// Target is a gRPC target, usually host:port of the operator's Service.
	Target string
	// ServerName is what the operator's certificate must name; empty means the host of Target.
	ServerName string
	// TrustBundlePath is a PEM file, read at each handshake, so that a rotated root needs no restart.
	TrustBundlePath string
	// TokenPath is a projected service-account token, read at each call, because the kubelet rotates it.
	TokenPath string
}

// Dial makes a client connection over TLS 1.3 with the bearer token on each call. It does not connect yet.
func (o Operator) Dial() (*grpc.ClientConn, error) {
	options := []grpc.DialOption{
		grpc.WithTransportCredentials(&bundleCredentials{
			// Info and the protocol of this one are right; its handshake is never used.
			TransportCredentials: credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13}),
			operator:             o,
		}),
		grpc.WithPerRPCCredentials(tokenFile(o.TokenPath)),
		grpc.WithKeepaliveParams(keepalive.ClientParameters{Time: keepaliveInterval, Timeout: keepaliveTimeout, PermitWithoutStream: true}),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: connectTimeout, Backoff: backoff.Config{
			BaseDelay: DefaultFirstBackoff, Multiplier: backoffFactor, MaxDelay: DefaultBackoffMax, Jitter: backoffJitter,
		}}),
	}
	if o.ServerName != "" {
		options = append(options, grpc.WithAuthority(o.ServerName)) // which is also the name that TLS verifies
	}
	conn, err := grpc.NewClient(o.Target, options...)
	if err != nil {
		return nil, fmt.Errorf("operator address %q: %w", o.Target, err)
	}
	return conn, nil
}

// bundleCredentials are TLS credentials that read their roots anew for each handshake.
type bundleCredentials struct {
	credentials.TransportCredentials
	operator Operator
}

// ClientHandshake implements credentials.TransportCredentials.
func (b *bundleCredentials) ClientHandshake(ctx context.Context, authority string, conn net.Conn) (net.Conn, credentials.AuthInfo, error) {
	pem, err := os.ReadFile(b.operator.TrustBundlePath)
	if err != nil {
		return nil, nil, fmt.Errorf("the operator cannot be verified without the mesh's trust bundle: %w", err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, nil, fmt.Errorf("the operator cannot be verified: %s holds no PEM certificate", b.operator.TrustBundlePath)
	}
	config := &tls.Config{MinVersion: tls.VersionTLS13, RootCAs: roots}
	return credentials.NewTLS(config).ClientHandshake(ctx, authority, conn)
}

// Clone implements credentials.TransportCredentials.
func (b *bundleCredentials) Clone() credentials.TransportCredentials {
	return &bundleCredentials{TransportCredentials: b.TransportCredentials.Clone(), operator: b.operator}
}

// tokenFile is the path of a bearer token.
type tokenFile string

// GetRequestMetadata implements credentials.PerRPCCredentials.
func (f tokenFile) GetRequestMetadata(context.Context, ...string) (map[string]string, error) {
	token, err := os.ReadFile(string(f))
	if err != nil {
		return nil, fmt.Errorf("no token to authenticate to the operator with: %w", err)
	}
	token = bytes.TrimSpace(token)
	if len(token) == 0 {
		return nil, fmt.Errorf("no token to authenticate to the operator with: %s is empty", string(f))
	}
	return map[string]string{"authorization": "Bearer " + string(token)}, nil
}

// RequireTransportSecurity implements credentials.PerRPCCredentials: a token never goes over plaintext.
func (f tokenFile) RequireTransportSecurity() bool { return true }
