// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"math/big"
	"net"
	"net/url"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// issuedBy signs a leaf as an issuer would that does what it is asked; mutate makes it another issuer.
func issuedBy(t testing.TB, ca *Signer, public crypto.PublicKey, mutate ...func(*x509.Certificate)) []byte {
	t.Helper()
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		URIs:         []*url.URL{uri(testID)}, NotBefore: testNow.Add(-time.Minute), NotAfter: testNow.Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: leafUsages, BasicConstraintsValid: true,
	}
	for _, m := range mutate {
		m(tmpl)
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, ca.Certificate(), public, ca.Key.Signer())
	require.NoError(t, err)
	c, err := x509.ParseCertificate(der)
	require.NoError(t, err)
	return EncodeCertificates(append([]*x509.Certificate{c}, ca.Chain...))
}

// TestWhatAnIssuerMaySign: an answer that isn't what was asked for is refused, and says so; one that is, is used with
// the chain that was verified and nothing else.
func TestWhatAnIssuerMaySign(t *testing.T) {
	root := newRoot(t, DefaultRootLifetime, testNow)
	between := newIntermediate(t, root, 24*time.Hour, testNow)
	stranger := newRoot(t, DefaultRootLifetime, testNow)
	key, other := p256(t), p256(t)
	with := func(m func(*x509.Certificate)) []byte { return issuedBy(t, between, key.Public(), m) }
	for name, tc := range map[string]struct {
		answer []byte
		ca     []byte
		want   string // empty: taken
		chain  int
	}{
		"as asked, with an intermediate": {answer: issuedBy(t, between, key.Public()), chain: 2},
		"by the root":                    {answer: issuedBy(t, root, key.Public()), chain: 1},
		"the root in the chain, and a stranger": {
			answer: append(
				issuedBy(t, between, key.Public()),
				EncodeCertificates([]*x509.Certificate{root.Root, stranger.Root})...,
			),
			chain: 2,
		},
		"a subject besides": {answer: with(func(c *x509.Certificate) { c.Subject = pkix.Name{CommonName: "pod"} }), chain: 2},
		"shorter lived": {
			answer: with(func(c *x509.Certificate) { c.NotAfter = testNow.Add(10 * time.Minute) }),
			chain:  2,
		},
		"another key": {answer: issuedBy(t, between, other.Public()), want: "another key"},
		"another identity": {answer: with(func(c *x509.Certificate) {
			c.URIs = []*url.URL{uri("spiffe://cluster.local/ns/shop/sa/other")}
		}), want: "names are not exactly"},
		"a second identity": {answer: with(func(c *x509.Certificate) {
			c.URIs = append(c.URIs, uri("spiffe://cluster.local/ns/shop/sa/other"))
		}), want: "names are not exactly"},
		"a DNS name besides": {
			answer: with(func(c *x509.Certificate) { c.DNSNames = []string{"cart"} }),
			want:   "names are not exactly",
		},
		"an address besides": {
			answer: with(func(c *x509.Certificate) { c.IPAddresses = []net.IP{{10, 0, 0, 1}} }),
			want:   "names are not exactly",
		},
		"a name of no kind": {answer: with(unknownName(t)), want: "names are not exactly"},
		"no name":           {answer: with(func(c *x509.Certificate) { c.URIs = nil }), want: "it has no name"},
		"a CA":              {answer: with(func(c *x509.Certificate) { c.IsCA = true }), want: "is a CA's"},
		"may sign": {
			answer: with(func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign }),
			want:   "may sign",
		},
		"may encipher only": {
			answer: with(func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyEncipherment }),
			want:   "signatures",
		},
		"for servers only": {
			answer: with(func(c *x509.Certificate) { c.ExtKeyUsage = leafUsages[1:] }),
			want:   "root of the trust bundle",
		},
		"for clients only": {
			answer: with(func(c *x509.Certificate) { c.ExtKeyUsage = leafUsages[:1] }),
			want:   "usages of a request",
		},
		"longer lived": {
			answer: with(func(c *x509.Certificate) { c.NotAfter = testNow.Add(2 * time.Hour) }),
			want:   "longer than",
		},
		"too short lived": {
			answer: with(func(c *x509.Certificate) { c.NotAfter = testNow.Add(time.Minute) }),
			want:   "for less than",
		},
		"not yet valid": {
			answer: with(func(c *x509.Certificate) { c.NotBefore = testNow.Add(time.Minute) }),
			want:   "not yet valid",
		},
		"another root's":  {answer: issuedBy(t, stranger, key.Public()), want: "doesn't lead to a root"},
		"no intermediate": {answer: firstOf(t, issuedBy(t, between, key.Public())), want: "doesn't lead to a root"},
		"no PEM":          {answer: []byte("x"), want: "no PEM certificate"},
		"too much":        {answer: make([]byte, maxIssuedBytes+1), want: "more than the limit"},
		"too long": {
			answer: repeated(issuedBy(t, root, key.Public()), maxIssuedChain+1),
			want:   "more than the limit",
		},
		"another root's, named": {
			answer: issuedBy(t, stranger, key.Public()), ca: EncodeCertificates([]*x509.Certificate{stranger.Root}),
			want: "SHA-256 " + fingerprint(stranger.Root),
		},
	} {
		t.Run(name, func(t *testing.T) {
			w := wanted{public: key.Public(), id: testID, lifetime: time.Hour, anchors: []*x509.Certificate{root.Root}}
			leaf, err := w.check(ExternalAnswer{Certificate: tc.answer, CA: tc.ca}, testNow)
			if tc.want == "" {
				require.NoError(t, err)
				require.Len(t, leaf.Chain, tc.chain)
				require.NoError(t, (Bundle{Roots: w.anchors}).VerifyIdentity(leaf.Chain, testID, testNow))
				return
			}
			require.ErrorContains(t, err, tc.want)
			var failure *IssueError
			require.ErrorAs(t, err, &failure)
			require.Equal(t, IssueRefused, failure.Reason)
			require.Empty(t, leaf.Chain)
		})
	}
}

// unknownName adds a registered ID, for which Go's certificates have no field.
func unknownName(t testing.TB) func(*x509.Certificate) {
	t.Helper()
	value, err := asn1.Marshal([]asn1.RawValue{
		{Class: asn1.ClassContextSpecific, Tag: tagURI, Bytes: []byte(testID)},
		{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte{42, 3}},
	})
	require.NoError(t, err)
	return func(c *x509.Certificate) {
		c.URIs, c.ExtraExtensions = nil, []pkix.Extension{{Id: oidSubjectAltName, Critical: true, Value: value}}
	}
}

func firstOf(t testing.TB, text []byte) []byte {
	t.Helper()
	certs, err := ParseCertificates(text)
	require.NoError(t, err)
	return EncodeCertificates(certs[:1])
}

func repeated(text []byte, n int) []byte {
	var out []byte
	for range n {
		out = append(out, text...)
	}
	return out
}

func TestAnchorsOfAnIssuer(t *testing.T) {
	ref := IssuerRef{Name: "corp", Kind: "ClusterIssuer", Group: "cert-manager.io"}
	live, old := newRoot(t, DefaultRootLifetime, testNow), newRoot(t, time.Hour, testNow.Add(-2*time.Hour))
	pem := func(roots ...*x509.Certificate) []byte { return EncodeCertificates(roots) }
	s, err := NewExternal(ref, pem(old.Root, live.Root, live.Root), testNow)
	require.NoError(t, err)
	require.Equal(t, []*x509.Certificate{live.Root}, s.External.Anchors)
	again, err := NewExternal(ref, pem(live.Root), testNow)
	require.NoError(t, err)
	require.True(t, s.Same(again))
	require.False(t, s.Same(live))
	require.True(t, s.Usable(testNow))
	require.False(t, s.Usable(live.Root.NotAfter))

	_, err = NewExternal(ref, pem(old.Root), testNow)
	require.ErrorContains(t, err, "expired")
	_, err = NewExternal(ref, []byte("x"), testNow)
	require.ErrorContains(t, err, "no PEM certificate")
	var many []*x509.Certificate
	for range maxAnchors + 1 {
		many = append(many, newRoot(t, DefaultRootLifetime, testNow).Root)
	}
	_, err = NewExternal(ref, pem(many...), testNow)
	require.ErrorContains(t, err, "could be any identity")
	leaf := issuedBy(t, live, p256(t).Public())
	_, err = NewExternal(ref, leaf, testNow)
	require.ErrorContains(t, err, "isn't a CA")
}
