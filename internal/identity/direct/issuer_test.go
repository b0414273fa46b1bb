// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"context"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"math/big"
	"net/url"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestCertManagerSignsEachCertificate: from the Mesh's settings to the certificate of a pod, by a real cert-manager,
// with the operator's own rights. Nothing is left of what was asked for, and there is no CA's key.
func TestCertManagerSignsEachCertificate(t *testing.T) {
	w := newWorld(t)
	apiserver.StartCertManager(t, w.cfg, w.namespace, true)
	k, cfg := w.keeper()
	eventually.Passes(t, "the issuer is tried, and taken", func(look require.TestingT) {
		r, err := k.Reconcile(t.Context(), cfg)
		require.NoError(look, err)
		require.True(look, r.Ready, r.Message)
	})
	require.NoError(t, keeper.Load(t.Context(), w.admin, w.namespace, w.authority))
	leaf, err := w.sign(t.Context(), cart)
	require.NoError(t, err)
	require.NoError(t, w.authority.Bundle().VerifyIdentity(leaf.Chain, cart, time.Now()))
	require.True(t, w.authority.Bundle().Has(w.root.Root))
	require.WithinDuration(t, time.Now().Add(time.Hour), leaf.NotAfter, time.Minute)

	const many = 200
	start := time.Now()
	var done sync.WaitGroup
	var failed atomic.Int32
	for n := range many {
		done.Go(func() {
			for range 20 { // as agents do when they are told to come again
				if _, err := w.sign(t.Context(), fmt.Sprintf("spiffe://cluster.local/ns/shop/sa/s%d", n)); err == nil {
					return
				}
			}
			failed.Add(1)
		})
	}
	most := 0
	finished := make(chan struct{})
	go func() { done.Wait(); close(finished) }()
	for running := true; running; {
		select {
		case <-finished:
			running = false
		case <-time.After(50 * time.Millisecond):
			most = max(most, len(w.requests(t)))
		}
	}
	require.Zero(t, failed.Load())
	require.LessOrEqual(t, most, maxUnderWay, "requests are bounded")
	took := time.Since(start)
	t.Logf("%d certificates in %s, %.1f in a second, %d requests at most at a time", many, took, many/took.Seconds(), most)
	require.Empty(t, w.requests(t))
}

// TestARequestIsNoMoreThanItMustBe: what the issuer and an approver see of a pod.
func TestARequestIsNoMoreThanItMustBe(t *testing.T) {
	w := newWorld(t)
	w.adopt()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { _, err := w.sign(ctx, cart); done <- err }()
	var cr certmanagerv1.CertificateRequest
	eventually.Passes(t, "the request", func(look require.TestingT) {
		all := w.requests(look)
		require.Len(look, all, 1)
		cr = all[0]
	})
	require.Equal(t, cart, cr.Annotations[names.AnnotationIdentity])
	require.Equal(t, time.Hour, cr.Spec.Duration.Duration)
	require.False(t, cr.Spec.IsCA)
	require.Equal(t, []certmanagerv1.KeyUsage{"digital signature", "client auth", "server auth"}, cr.Spec.Usages)
	require.Equal(t, "Pod", cr.OwnerReferences[0].Kind, "it goes with the replica")
	block, _ := pem.Decode(cr.Spec.Request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(t, err)
	require.Empty(t, csr.Subject.String())
	require.Equal(t, cart, csr.URIs[0].String())
	before := w.issuer.rate.Limit()
	cancel()
	var failure *identity.IssueError
	require.ErrorAs(t, <-done, &failure)
	require.Equal(t, identity.IssueBusy, failure.Reason, "that says nothing of the issuer")
	require.InDelta(t, float64(before), float64(w.issuer.rate.Limit()), 0)
	eventually.Passes(t, "it goes when nobody waits for it", func(look require.TestingT) {
		require.Empty(look, w.requests(look))
	})
}

// TestDenials: an approver or an issuer that says no is quoted, and the next request isn't held up by it.
func TestDenials(t *testing.T) {
	w := newWorld(t)
	apiserver.StartCertManager(t, w.cfg, w.namespace, false)
	w.adopt()
	for _, tc := range []struct {
		reason identity.IssueReason
		text   string
		say    func(*certmanagerv1.CertificateRequest)
	}{
		{identity.IssueDenied, "no carts on Sundays", func(cr *certmanagerv1.CertificateRequest) {
			says(cr, certmanagerv1.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "policy", "no carts on Sundays")
		}},
		{identity.IssueFailed, "permission denied by vault", func(cr *certmanagerv1.CertificateRequest) {
			says(cr, certmanagerv1.CertificateRequestConditionReady, cmmeta.ConditionFalse,
				certmanagerv1.CertificateRequestReasonFailed, "permission denied by vault")
		}},
		{"", "", func(cr *certmanagerv1.CertificateRequest) {
			says(cr, certmanagerv1.CertificateRequestConditionApproved, cmmeta.ConditionTrue, "policy", "it is Monday")
		}},
	} {
		done := make(chan error, 1)
		go func() { _, err := w.sign(t.Context(), cart); done <- err }()
		w.answer(tc.say)
		err := <-done
		if tc.reason == "" {
			require.NoError(t, err)
			continue
		}
		var failure *identity.IssueError
		require.ErrorAs(t, err, &failure)
		require.Equal(t, tc.reason, failure.Reason)
		require.ErrorContains(t, err, tc.text)
		require.ErrorContains(t, err, `cert-manager Issuer.cert-manager.io "corp"`)
		eventually.Passes(t, "the request is deleted", func(look require.TestingT) { require.Empty(look, w.requests(look)) })
	}
	require.InDelta(t, fastest, float64(w.issuer.rate.Limit()), 0, "the issuer does what it should again")
}

// TestAnIssuerThatIsDownAndBack: nobody answers, which is said with what is missing; then cert-manager is back.
func TestAnIssuerThatIsDownAndBack(t *testing.T) {
	w := newWorld(t)
	w.adopt()
	w.issuer.patience = 2 * time.Second
	before := w.issuer.rate.Limit()
	_, err := w.sign(t.Context(), cart)
	var failure *identity.IssueError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, identity.IssueUnavailable, failure.Reason)
	require.ErrorContains(t, err, "nobody has approved the request")
	require.Less(t, w.issuer.rate.Limit(), before, "it is asked for less")
	require.Empty(t, w.requests(t))

	w.issuer.patience = patience
	c := apiserver.StartCertManager(t, w.cfg, w.namespace, true)
	_, err = w.sign(t.Context(), cart)
	require.NoError(t, err)
	c.Stop()
	w.issuer.patience = 2 * time.Second
	_, err = w.sign(t.Context(), cart)
	require.ErrorAs(t, err, &failure)
}

// TestAHostileIssuer: one that answers, but not what it was asked for.
func TestAHostileIssuer(t *testing.T) {
	w := newWorld(t)
	w.ref = identity.IssuerRef{Name: "corp", Kind: "Issuer", Group: "issuers.example.org"}
	w.adopt()
	other, err := identity.GenerateKey()
	require.NoError(t, err)
	for want, change := range map[string]func(c *x509.Certificate, public *any){
		"another key":           func(_ *x509.Certificate, public *any) { *public = other.Signer().Public() },
		"names are not exactly": func(c *x509.Certificate, _ *any) { c.URIs[0].Path = "/ns/shop/sa/other" },
		"it is a CA's":          func(c *x509.Certificate, _ *any) { c.IsCA = true },
		"longer than":           func(c *x509.Certificate, _ *any) { c.NotAfter = c.NotAfter.Add(24 * time.Hour) },
		"":                      func(*x509.Certificate, *any) {},
	} {
		done := make(chan error, 1)
		go func() { _, err := w.sign(t.Context(), cart); done <- err }()
		w.answer(func(cr *certmanagerv1.CertificateRequest) {
			cr.Status.Certificate = w.signed(cr, change)
			says(cr, certmanagerv1.CertificateRequestConditionReady, cmmeta.ConditionTrue, "Issued", "")
		})
		if err := <-done; want == "" {
			require.NoError(t, err)
		} else {
			require.ErrorContains(t, err, want)
		}
		eventually.Passes(t, "the request is deleted", func(look require.TestingT) { require.Empty(look, w.requests(look)) })
	}
}

// signed is a certificate for a request, as the test's own issuer makes it.
func (w *world) signed(cr *certmanagerv1.CertificateRequest, change func(*x509.Certificate, *any)) []byte {
	w.t.Helper()
	block, _ := pem.Decode(cr.Spec.Request)
	csr, err := x509.ParseCertificateRequest(block.Bytes)
	require.NoError(w.t, err)
	id := *csr.URIs[0]
	tmpl := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{&id}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(cr.Spec.Duration.Duration),
		KeyUsage:    x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
	}
	public := csr.PublicKey
	change(tmpl, &public)
	der, err := x509.CreateCertificate(rand.Reader, tmpl, w.root.Root, public, w.root.Key.Signer())
	require.NoError(w.t, err)
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestARestartLeavesNothing: what a replica was waiting for when it was restarted goes when it starts again; another's
// stays, until it is too old.
func TestARestartLeavesNothing(t *testing.T) {
	w := newWorld(t)
	w.adopt()
	left := w.issuer.request(identity.ExternalRequest{
		Issuer: w.ref, Identity: cart, CSR: []byte("x"), Lifetime: time.Hour,
	})
	w.create(left)
	others := left.DeepCopy()
	others.ResourceVersion, others.Name, others.Labels[names.LabelReplica] = "", name("fairway-identity-"), "operator-2"
	w.create(others)
	again := New(w.issuer.opts)
	require.NoError(t, again.recover(t.Context()))
	all := w.requests(t)
	require.Len(t, all, 1)
	require.Equal(t, others.Name, all[0].Name)
}

// TestARequestThatSomebodyDeletes is not waited for.
func TestARequestThatSomebodyDeletes(t *testing.T) {
	w := newWorld(t)
	w.adopt()
	done := make(chan error, 1)
	sign := func() { _, err := w.sign(t.Context(), cart); done <- err }
	// The watch begins with the first request, and doesn't hear of one that came and went before.
	go sign()
	w.answer(func(cr *certmanagerv1.CertificateRequest) {
		says(cr, certmanagerv1.CertificateRequestConditionDenied, cmmeta.ConditionTrue, "Policy", "not you")
	})
	require.ErrorContains(t, <-done, "not you")
	go sign()
	eventually.Passes(t, "the request is deleted", func(look require.TestingT) {
		all := w.requests(look)
		require.Len(look, all, 1)
		require.NoError(look, w.admin.Delete(t.Context(), &all[0]))
	})
	require.ErrorContains(t, <-done, "somebody deleted the request")
}

// TestSlotsAreBounded: who asks while all slots are taken is told to come again, and costs the issuer nothing.
func TestSlotsAreBounded(t *testing.T) {
	i := New(Options{})
	i.queueWait = 20 * time.Millisecond
	for range maxUnderWay {
		_, err := i.enter(t.Context())
		require.NoError(t, err)
	}
	_, err := i.Issue(t.Context(), identity.ExternalRequest{})
	var failure *identity.IssueError
	require.ErrorAs(t, err, &failure)
	require.Equal(t, identity.IssueBusy, failure.Reason)
}

func TestWithoutCertManager(t *testing.T) {
	err := notMade(&meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "cert-manager.io"}})
	require.ErrorContains(t, err, "install cert-manager")
	require.Equal(t, v1alpha1.MeshReasonIssuerUnavailable, string(identity.IssueUnavailable))
	require.Equal(t, v1alpha1.MeshReasonIssuerDenied, string(identity.IssueDenied))
	require.Equal(t, v1alpha1.MeshReasonIssuerFailed, string(identity.IssueFailed))
	require.Equal(t, v1alpha1.MeshReasonCertificateRefused, string(identity.IssueRefused))
}
