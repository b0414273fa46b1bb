// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// authority signs the operator's certificate.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test root"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	cert, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return authority{cert: cert, key: key}
}

func (a authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

func (a authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	template := &x509.Certificate{SerialNumber: big.NewInt(2), DNSNames: []string{name}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	require.NoError(t, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func TestOperatorCredentialsFollowTheirFiles(t *testing.T) {
	const name, token = "operator.test", "token-2"
	root := newAuthority(t)
	cert := root.issue(t, name)
	lis, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	g := grpc.NewServer(append(xds.GRPCOptions(0), grpc.Creds(credentials.NewServerTLSFromCert(&cert)))...)
	xds.NewServer(xds.Options{Cache: xds.NewCache(), Authenticator: xds.AuthenticatorFunc(func(ctx context.Context) (xds.Proxy, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		if got := md.Get("authorization"); len(got) != 1 || got[0] != "Bearer "+token {
			return xds.Proxy{}, errors.New("the token is not valid for this mesh")
		}
		return xds.Proxy{Scope: nodeScope}, nil
	})}).Register(g)
	go func() { _ = g.Serve(lis) }()
	t.Cleanup(g.Stop)

	dir := t.TempDir()
	o := Operator{
		Target: lis.Addr().String(), ServerName: name,
		TrustBundlePath: filepath.Join(dir, "ca.crt"), TokenPath: filepath.Join(dir, "token"),
	}
	a := startRelay(t, Options{Dial: o.Dial})
	write := func(path, content string) { require.NoError(t, os.WriteFile(path, []byte(content), 0o600)) }
	fails := func(text string) {
		t.Helper()
		a.eventually(text, func() bool {
			s := a.Status()
			return !s.Connected && contains(s.LastError, text)
		})
	}
	fails("cannot be verified without the mesh's trust bundle")
	write(o.TrustBundlePath, string(newAuthority(t).pem()))
	fails("certificate signed by unknown authority")
	write(o.TrustBundlePath, string(root.pem()))
	fails("no token to authenticate to the operator with")
	write(o.TokenPath, "token-1\n")
	fails("the token is not valid for this mesh")
	write(o.TokenPath, token+"\n")
	a.eventually("connected", func() bool { return a.Status().Connected })
	require.Empty(t, a.Status().LastError)
}

func TestListenRefusesOtherUsers(t *testing.T) {
	path := filepath.Join(shortDir(t), "run", "xds.sock")
	for range 2 { // the second replaces the socket that the first left
		lis, err := Listen(path, uint32(os.Getuid())+1)
		require.NoError(t, err)
		go func() { _, _ = lis.Accept() }()
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err, "closed at once")
		require.NoError(t, conn.Close())
		lis.(*peerListener).SetUnlinkOnClose(false)
		require.NoError(t, lis.Close())
	}
}
