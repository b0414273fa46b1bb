// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scrape

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/serve"
)

const (
	// connections in all, and of one peer, for collectors of metrics.
	connections, perPeer = 64, 8
	certificateLife      = 90 * 24 * time.Hour
	serialBits           = 127
)

// Serve answers on all addresses, on a port, until the context ends. The certificate is the process's own: who scrapes
// can't verify it, as that of most kubelets.
func Serve(ctx context.Context, port int, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", net.JoinHostPort("", strconv.Itoa(port)))
	if err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return serveOn(ctx, l, h)
}

func serveOn(ctx context.Context, l net.Listener, h http.Handler) error {
	certificates := &selfSigned{now: time.Now}
	s := &http.Server{
		Handler:           h,
		TLSConfig:         &tls.Config{MinVersion: tls.VersionTLS12, GetCertificate: certificates.refresh},
		ReadHeaderTimeout: 5 * time.Second,
		ReadTimeout:       10 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    32 << 10,
		ErrorLog:          log.New(io.Discard, "", 0), // failed handshakes of whoever reaches the port
	}
	if err := serve.HTTP(ctx, s, accept.Limit(l, connections, perPeer), time.Second); err != nil {
		return fmt.Errorf("metrics: %w", err)
	}
	return nil
}

// selfSigned is a certificate that is replaced when half its life is over.
type selfSigned struct {
	now func() time.Time

	mu      sync.Mutex
	current *tls.Certificate
}

// refresh returns the certificate, a new one where it is time. It is for tls.Config.GetCertificate.
func (s *selfSigned) refresh(*tls.ClientHelloInfo) (*tls.Certificate, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := s.now()
	if s.current != nil && now.Before(s.current.Leaf.NotAfter.Add(-certificateLife/2)) {
		return s.current, nil
	}
	fresh, err := newCertificate(now)
	if err != nil {
		return nil, fmt.Errorf("make a certificate: %w", err)
	}
	s.current = fresh
	return fresh, nil
}

func newCertificate(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), serialBits))
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: "fairway-metrics"},
		NotBefore: now.Add(-time.Minute), NotAfter: now.Add(certificateLife),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}, nil
}
