// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package control is the way from an agent to the operator: who the operator must prove to be, and how the agent proves
// who it is. The xDS stream and the certificate requests go this one way, so both follow a change of CA alike.
package control

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/identity"
)

// Operator is the operator as an agent knows it. Make it with New or Learning. It is safe for concurrent use.
type Operator struct {
	serverName, id, tokenFile, bundleFile string

	mu     sync.Mutex
	learnt identity.Bundle
}

// New returns an operator that is reached by serverName, whose certificate must be for the SPIFFE ID and lead to the
// PEM bundle in bundleFile, or to a newer one that the operator itself sent (see Learn), and to whom the projected
// service-account token in tokenFile is shown. Both files are read again for each use, since the kubelet replaces them.
// The name isn't verified: not every issuer signs names of the cluster.
func New(serverName, id, tokenFile, bundleFile string) *Operator {
	return &Operator{serverName: serverName, id: id, tokenFile: tokenFile, bundleFile: bundleFile}
}

// Learning returns an operator that is trusted by what is learnt alone: whoever gives the agent its identities gives it
// the roots, too.
func Learning(serverName, id, tokenFile string) *Operator { return New(serverName, id, tokenFile, "") }

// TLS is the configuration for one handshake: TLS 1.3, and the roots that are trusted now. It fails where none are
// known.
func (o *Operator) TLS() (*tls.Config, error) {
	b, err := o.Trusted()
	if err != nil {
		return nil, fmt.Errorf("the operator can't be verified: %w", err)
	}
	return &tls.Config{
		MinVersion: tls.VersionTLS13, ServerName: o.serverName,
		InsecureSkipVerify: true, //nolint:gosec // VerifyConnection pins the chain and the identity
		VerifyConnection: func(cs tls.ConnectionState) error {
			return b.VerifyIdentity(cs.PeerCertificates, o.id, time.Now())
		},
	}, nil
}

// Token is the bearer token as it is now.
func (o *Operator) Token() (string, error) {
	text, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return "", fmt.Errorf("no token to authenticate to the operator with: %w", err)
	}
	token := strings.TrimSpace(string(text))
	if token == "" {
		return "", fmt.Errorf("no token to authenticate to the operator with: %s is empty", o.tokenFile)
	}
	return token, nil
}

// Trusted is the newest bundle known: of the file, or of the operator. A file that is late, or gone, takes no trust
// away.
func (o *Operator) Trusted() (identity.Bundle, error) {
	file, err := identity.Bundle{}, errors.New("no trust bundle has been given yet")
	if o.bundleFile != "" {
		file, err = o.file()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	known := len(o.learnt.Roots) > 0
	switch {
	case err == nil && (!known || file.Generation >= o.learnt.Generation):
		return file, nil
	case known:
		return o.learnt, nil
	}
	return identity.Bundle{}, err
}

func (o *Operator) file() (identity.Bundle, error) {
	text, err := os.ReadFile(o.bundleFile)
	if err != nil {
		return identity.Bundle{}, fmt.Errorf("read the mesh's trust bundle: %w", err)
	}
	b, err := identity.ParseBundle(text)
	if err != nil {
		return identity.Bundle{}, fmt.Errorf("%s: %w", o.bundleFile, err)
	}
	return b, nil
}

// Learn keeps a bundle that the operator sent over a connection on which it was verified.
func (o *Operator) Learn(b identity.Bundle) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if b.Generation >= o.learnt.Generation {
		o.learnt = b
	}
}

// Give keeps roots that whoever gives identities gave last.
func (o *Operator) Give(roots []*x509.Certificate) {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.learnt = identity.Bundle{Generation: o.learnt.Generation + 1, Roots: roots}
}
