// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package identity

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr/funcr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/testca"
)

const (
	testDomain = "cluster.local"
	testID     = "spiffe://cluster.local/ns/shop/sa/cart"
)

var testNow = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func newRoot(t testing.TB, life time.Duration, now time.Time) *Signer {
	t.Helper()
	s, err := NewRoot(testDomain, life, now)
	require.NoError(t, err)
	return s
}

// newIntermediate is a CA under root, as an issuer would give it; mutate changes the template.
func newIntermediate(
	t testing.TB, root *Signer, life time.Duration, now time.Time, mutate ...func(*x509.Certificate),
) *Signer {
	t.Helper()
	issuer := testca.Of(t, root.Certificate(), root.Key.Signer())
	issuer.Now = func() time.Time { return now }
	ca := issuer.Intermediate(life, mutate...)
	keyPEM, err := NewPrivateKey(ca.Key).PEM()
	require.NoError(t, err)
	s, err := ParseSigner("issuer", ca.PEM(), keyPEM, EncodeCertificates([]*x509.Certificate{root.Root}))
	require.NoError(t, err)
	return s
}

func newAuthority(t testing.TB, active *Signer, lifetime time.Duration, now func() time.Time) *Authority {
	t.Helper()
	a := NewAuthority(now)
	s, _ := State{}.Step(Observed{Signer: active, TrustDomain: testDomain, LeafLifetime: lifetime}, DefaultPolicy, now())
	a.Update(s)
	return a
}

func at(t time.Time) func() time.Time { return func() time.Time { return t } }

func csrOf(t testing.TB, tmpl *x509.CertificateRequest, key crypto.Signer) []byte {
	t.Helper()
	der, err := x509.CreateCertificateRequest(rand.Reader, tmpl, key)
	require.NoError(t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der})
}

func uri(s string) *url.URL {
	u, err := url.Parse(s)
	if err != nil {
		panic(err)
	}
	return u
}

func p256(t testing.TB) crypto.Signer {
	t.Helper()
	k, err := GenerateKey()
	require.NoError(t, err)
	return k.Signer()
}

func TestSignIssuesALeafThatPeersAccept(t *testing.T) {
	root := newRoot(t, DefaultRootLifetime, testNow)
	for _, tc := range []struct {
		name   string
		signer *Signer
		chain  int
	}{
		{"root", root, 1},
		{"intermediate", newIntermediate(t, root, 90*24*time.Hour, testNow), 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAuthority(t, tc.signer, time.Hour, at(testNow))
			key, err := GenerateKey()
			require.NoError(t, err)
			csr, err := NewCSR(testID, key)
			require.NoError(t, err)
			leaf, err := a.Sign(t.Context(), csr, testID)
			require.NoError(t, err)

			require.Len(t, leaf.Chain, tc.chain, "the root stays out of the chain")
			c := leaf.Chain[0]
			assert.Equal(t, testNow.Add(-time.Minute), c.NotBefore)
			assert.Equal(t, testNow.Add(time.Hour), c.NotAfter)
			assert.Equal(t, c.NotAfter, leaf.NotAfter)
			assert.False(t, c.IsCA)
			assert.True(t, c.BasicConstraintsValid)
			assert.Equal(t, x509.KeyUsageDigitalSignature, c.KeyUsage)
			assert.Equal(t, []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, c.ExtKeyUsage)
			assert.Empty(t, c.Subject.Names)
			assert.Greater(t, c.SerialNumber.BitLen(), 64)
			require.Len(t, c.URIs, 1)
			assert.Equal(t, testID, c.URIs[0].String())
			assert.Empty(t, c.DNSNames)
			assert.True(t, key.Matches(c))
			assert.NoError(t, a.Bundle().VerifyLeaf(leaf.Chain, testNow))
			assert.Error(t, a.Bundle().VerifyLeaf(leaf.Chain, testNow.Add(time.Hour+time.Second)))

			again, err := a.Sign(t.Context(), csr, testID)
			require.NoError(t, err)
			assert.NotEqual(t, c.SerialNumber, again.Chain[0].SerialNumber)
		})
	}
}

func TestMetrics(t *testing.T) {
	gather := func(a *Authority) map[string]float64 {
		r := prometheus.NewPedanticRegistry()
		require.NoError(t, r.Register(a))
		families, err := r.Gather()
		require.NoError(t, err)
		out := map[string]float64{}
		for _, f := range families {
			out[f.GetName()] = f.GetMetric()[0].GetGauge().GetValue() + f.GetMetric()[0].GetCounter().GetValue()
		}
		return out
	}
	assert.NotContains(t, gather(NewAuthority(at(testNow))), "fairway_ca_not_after_timestamp_seconds")
	a := newAuthority(t, newRoot(t, time.Hour, testNow), time.Hour, at(testNow))
	_, err := a.Sign(t.Context(), nil, testID)
	require.Error(t, err)
	assert.Equal(t, map[string]float64{
		"fairway_ca_not_after_timestamp_seconds": float64(testNow.Add(time.Hour).Unix()),
		"fairway_certificates_signed_total":      0,
		"fairway_trust_bundle_generation":        float64(testNow.Unix()),
		"fairway_trust_bundle_roots":             1,
	}, gather(a))
}

func TestALeafNeverOutlivesItsCA(t *testing.T) {
	root := newRoot(t, 10*time.Hour, testNow)
	csr := csrOf(t, &x509.CertificateRequest{URIs: []*url.URL{uri(testID)}}, p256(t))
	a := newAuthority(t, newIntermediate(t, root, 20*time.Hour, testNow), 24*time.Hour, at(testNow))
	leaf, err := a.Sign(t.Context(), csr, testID)
	require.NoError(t, err)
	assert.Equal(t, root.Root.NotAfter, leaf.NotAfter)

	late := testNow
	a = newAuthority(t, root, time.Hour, func() time.Time { return late })
	late = root.Root.NotAfter.Add(-time.Second)
	_, err = a.Sign(t.Context(), csr, testID)
	assert.ErrorIs(t, err, ErrNotReady)
}

func TestSignRefusesWithoutACA(t *testing.T) {
	a := NewAuthority(nil)
	_, err := a.Sign(t.Context(), nil, testID)
	require.ErrorIs(t, err, ErrNotReady)
	require.Error(t, a.Ready())
}

func TestSignNoticesAConstrainedCA(t *testing.T) {
	ca := newIntermediate(t, newRoot(t, time.Hour, testNow), time.Hour, testNow, func(c *x509.Certificate) {
		c.PermittedURIDomains = []string{"elsewhere.example"}
	})
	a := newAuthority(t, ca, time.Hour, at(testNow))
	_, err := a.Sign(t.Context(), csrOf(t, &x509.CertificateRequest{URIs: []*url.URL{uri(testID)}}, p256(t)), testID)
	assert.ErrorContains(t, err, "constrained")
}

func TestCSRChecks(t *testing.T) {
	rsaKey := func(bits int) crypto.Signer {
		k, err := rsa.GenerateKey(rand.Reader, bits)
		require.NoError(t, err)
		return k
	}
	ec := func(c elliptic.Curve) crypto.Signer {
		k, err := ecdsa.GenerateKey(c, rand.Reader)
		require.NoError(t, err)
		return k
	}
	_, edKey, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	good := &x509.CertificateRequest{URIs: []*url.URL{uri(testID)}}
	ca := pkix.Extension{Id: []int{2, 5, 29, 19}, Critical: true, Value: []byte{0x30, 3, 1, 1, 0xff}}
	// otherName, which Go's parser skips: [0] { OID 1.2.3, [0] UTF8String "x" } beside the URI.
	hidden := append([]byte{0x30, byte(9 + 2 + len(testID)), 0xa0, 7, 6, 2, 0x2a, 3, 0xa0, 1, 0x0c},
		append([]byte{0x86, byte(len(testID))}, testID...)...)
	flipped := csrOf(t, good, p256(t))
	block, _ := pem.Decode(flipped)
	block.Bytes[len(block.Bytes)-3] ^= 1
	flipped = pem.EncodeToMemory(block)

	t.Setenv("GODEBUG", "rsa1024min=0") // to make the short key at all
	for _, tc := range []struct {
		name string
		csr  []byte
		id   string
		want string // empty: accepted
	}{
		{"P-256", csrOf(t, good, p256(t)), testID, ""},
		{"P-384", csrOf(t, good, ec(elliptic.P384())), testID, ""},
		{"Ed25519", csrOf(t, good, edKey), testID, ""},
		{"RSA 2048", csrOf(t, good, rsaKey(2048)), testID, ""},
		{"RSA 1024", csrOf(t, good, rsaKey(1024)), testID, "1024 bits"},
		{"P-521", csrOf(t, good, ec(elliptic.P521())), testID, "P-521"},
		{"P-224", csrOf(t, good, ec(elliptic.P224())), testID, "P-224"},
		{"forged SAN", csrOf(t, &x509.CertificateRequest{URIs: []*url.URL{uri("spiffe://cluster.local/ns/shop/sa/admin")}},
			p256(t)), testID, "URI is"},
		{
			"two URIs", csrOf(t, &x509.CertificateRequest{URIs: []*url.URL{uri(testID), uri(testID + "x")}}, p256(t)), testID,
			"exactly one URI",
		},
		{"no SAN", csrOf(t, &x509.CertificateRequest{}, p256(t)), testID, "exactly one extension"},
		{
			"DNS name beside", csrOf(t, &x509.CertificateRequest{URIs: good.URIs, DNSNames: []string{"a.example"}}, p256(t)),
			testID, "exactly one URI",
		},
		{"IP beside", csrOf(t, &x509.CertificateRequest{URIs: good.URIs, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}},
			p256(t)), testID, "exactly one URI"},
		{"e-mail beside", csrOf(t, &x509.CertificateRequest{URIs: good.URIs, EmailAddresses: []string{"a@b.example"}},
			p256(t)), testID, "exactly one URI"},
		{
			"name of a kind that Go skips",
			csrOf(t, &x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: oidSubjectAltName, Value: hidden}}},
				p256(t)), testID, "exactly one URI",
		},
		{
			"CA bit", csrOf(t, &x509.CertificateRequest{URIs: good.URIs, ExtraExtensions: []pkix.Extension{ca}}, p256(t)),
			testID, "exactly one extension",
		},
		{
			"subject", csrOf(t, &x509.CertificateRequest{URIs: good.URIs, Subject: pkix.Name{CommonName: "x"}}, p256(t)), testID,
			"subject must be empty",
		},
		{"wrong signature", flipped, testID, "signature"},
		{"not PEM", []byte("hello"), testID, "PEM"},
		{"certificate instead", newRoot(t, time.Hour, testNow).rootPEM(), testID, "CERTIFICATE REQUEST"},
		{"two blocks", append(csrOf(t, good, p256(t)), csrOf(t, good, p256(t))...), testID, "more than one"},
		{"oversized", make([]byte, maxCSRBytes+1), testID, "limit"},
		{
			"other trust domain", csrOf(t, &x509.CertificateRequest{URIs: []*url.URL{uri("spiffe://evil/ns/a/sa/b")}}, p256(t)),
			"spiffe://evil/ns/a/sa/b", "trust domain",
		},
		{"not SPIFFE", csrOf(t, good, p256(t)), "https://cluster.local/ns/shop/sa/cart", "form"},
		{"query", csrOf(t, good, p256(t)), testID + "?x=1", "isn't of the form"},
		{"escapes", csrOf(t, good, p256(t)), "spiffe://cluster.local/ns/shop/sa/c%61rt", "isn't of the form"},
		{"case", csrOf(t, good, p256(t)), "spiffe://cluster.local/ns/Shop/sa/cart", "couldn't have"},
		{"dots", csrOf(t, good, p256(t)), "spiffe://cluster.local/ns/../sa/cart", "isn't of the form"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			a := newAuthority(t, newRoot(t, 48*time.Hour, testNow), time.Hour, at(testNow))
			leaf, err := a.Sign(t.Context(), tc.csr, tc.id)
			if tc.want == "" {
				require.NoError(t, err)
				assert.NoError(t, a.Bundle().VerifyLeaf(leaf.Chain, testNow))
				return
			}
			require.ErrorIs(t, err, ErrBadRequest)
			assert.ErrorContains(t, err, tc.want)
		})
	}
}

func (s *Signer) rootPEM() []byte { return EncodeCertificates([]*x509.Certificate{s.Root}) }

func TestParseSignerSaysWhatIsWrong(t *testing.T) {
	root := newRoot(t, time.Hour, testNow)
	other := newRoot(t, time.Hour, testNow)
	rootKey, err := root.Key.PEM()
	require.NoError(t, err)
	otherKey, err := other.Key.PEM()
	require.NoError(t, err)
	leafKey, err := GenerateKey()
	require.NoError(t, err)
	leaf, err := signLeaf(root, leafRequest{public: leafKey.Signer().Public(), uri: testID, lifetime: time.Hour}, testNow)
	require.NoError(t, err)
	leafKeyPEM, err := leafKey.PEM()
	require.NoError(t, err)
	for _, tc := range []struct {
		name           string
		crt, key, root []byte
		want           string
	}{
		{"good", root.rootPEM(), rootKey, root.rootPEM(), ""},
		{"no certificate", nil, rootKey, root.rootPEM(), "tls.crt: no PEM certificate"},
		{"no key", root.rootPEM(), nil, root.rootPEM(), "tls.key: no PEM private key"},
		{
			"garbled key", root.rootPEM(), []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
			root.rootPEM(), "can't be parsed",
		},
		{"key of another", root.rootPEM(), otherKey, root.rootPEM(), "doesn't belong"},
		{"no root", root.rootPEM(), rootKey, nil, "ca.crt is empty"},
		{"root of another", root.rootPEM(), rootKey, other.rootPEM(), "doesn't lead to"},
		{"a leaf", EncodeCertificates(leaf.Chain), leafKeyPEM, root.rootPEM(), "isn't a CA"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s, err := ParseSigner("x", tc.crt, tc.key, tc.root)
			if tc.want == "" {
				require.NoError(t, err)
				assert.Empty(t, s.Chain)
				return
			}
			require.ErrorContains(t, err, tc.want)
			if len(tc.key) > 0 {
				assert.NotContains(t, err.Error(), "AAAA")
			}
		})
	}
}

func TestPrivateKeyRedactsItself(t *testing.T) {
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	require.NoError(t, err)
	key := NewPrivateKey(ed)
	type holder struct{ hidden PrivateKey }
	var logged strings.Builder
	log := funcr.NewJSON(func(obj string) { logged.WriteString(obj) }, funcr.Options{})
	log.Info("x", "key", key, "signer", Signer{Key: key})
	js, err := json.Marshal(map[string]any{"key": key})
	require.NoError(t, err)
	out := []string{logged.String(), string(js)}
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%d"} {
		out = append(out, fmt.Sprintf(verb, key), fmt.Sprintf(verb, holder{key}), fmt.Sprintf(verb, &Signer{Key: key}))
	}
	for _, secret := range []string{
		fmt.Sprintf("%x", []byte(ed)), strings.Trim(fmt.Sprint(string([]byte(ed)[:4])), "[]"),
		strings.Trim(fmt.Sprintf("%#v", []byte(ed)[:4]), "[]byte{}"),
	} {
		for _, o := range out {
			assert.NotContains(t, o, secret)
		}
	}
	assert.Equal(t, redacted, fmt.Sprint(key))
	assert.Contains(t, string(js), redacted)
}

func TestBundleRoundTrip(t *testing.T) {
	b := Bundle{Generation: 42, Roots: []*x509.Certificate{newRoot(t, time.Hour, testNow).Root, newRoot(
		t, time.Hour, testNow).Root}}
	got, err := ParseBundle(b.PEM())
	require.NoError(t, err)
	assert.True(t, b.Equal(got))
	for _, bad := range []string{"", "x", string(make([]byte, maxBundleBytes+1))} {
		_, err := ParseBundle([]byte(bad))
		assert.Error(t, err)
	}
	plain, err := ParseBundle(EncodeCertificates(b.Roots))
	require.NoError(t, err)
	assert.Zero(t, plain.Generation, "a bundle that a person wrote")
}

func FuzzParseCSR(f *testing.F) {
	f.Add(csrOf(f, &x509.CertificateRequest{URIs: []*url.URL{uri(testID)}}, p256(f)), testID)
	f.Add(csrOf(f, &x509.CertificateRequest{DNSNames: []string{"a"}}, p256(f)), testID)
	f.Add([]byte("-----BEGIN CERTIFICATE REQUEST-----\nMAA=\n-----END CERTIFICATE REQUEST-----\n"),
		"spiffe://cluster.local/ns/a/sa/b")
	ca := newRoot(f, time.Hour, testNow)
	a := newAuthority(f, ca, time.Hour, at(testNow))
	f.Fuzz(func(t *testing.T, csr []byte, id string) {
		leaf, err := a.Sign(t.Context(), csr, id)
		if err != nil {
			return
		}
		c := leaf.Chain[0]
		if len(c.URIs) != 1 || c.URIs[0].String() != id || !strings.HasPrefix(id, "spiffe://"+testDomain+"/ns/") || c.IsCA ||
			len(c.DNSNames) != 0 {
			t.Fatalf("signed a certificate %v for %q", c.URIs, id)
		}
	})
}

// FuzzParseDER goes behind PEM, where the fuzzer seldom gets by itself.
func FuzzParseDER(f *testing.F) {
	block, _ := pem.Decode(csrOf(f, &x509.CertificateRequest{URIs: []*url.URL{uri(testID)}}, p256(f)))
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, der []byte) {
		pub, err := parseCSR(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: der}), testID)
		if (pub == nil) == (err == nil) {
			t.Fatalf("key %v, error %v", pub, err)
		}
	})
}

func FuzzParseBundle(f *testing.F) {
	f.Add(Bundle{Generation: 7, Roots: []*x509.Certificate{newRoot(f, time.Hour, testNow).Root}}.PEM())
	f.Add([]byte(generationPrefix + "99999999999999999999\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		b, err := ParseBundle(text)
		if err != nil {
			return
		}
		again, err := ParseBundle(b.PEM())
		if err != nil || !again.Equal(b) {
			t.Fatalf("not stable: %v", err)
		}
	})
}
