// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keeper_test

import (
	"context"
	"crypto/x509"
	"sync"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/names"
)

// issuer answers trials as the test says.
type issuer struct {
	mu    sync.Mutex
	err   error
	asked []string
	ended chan struct{}
}

func (i *issuer) Probe(_ context.Context, _ *identity.Signer, id string, _ time.Duration) error {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.asked = append(i.asked, id)
	return i.err
}

func (i *issuer) says(err error) {
	i.mu.Lock()
	defer i.mu.Unlock()
	i.err = err
}

// directly makes an issuer sign each certificate.
func (w *world) directly() *issuer {
	i := &issuer{ended: make(chan struct{}, 8)}
	w.keeper.Prober, w.keeper.Changed = i, func() { i.ended <- struct{}{} }
	w.cfg.Direct = &v1alpha1.CertManagerCertificates{
		Mode: v1alpha1.CertManagerModeDirect, IssuerRef: v1alpha1.IssuerReference{Name: "corp"},
		TrustBundleRef: &v1alpha1.TrustBundleReference{Name: "corp-roots"},
	}
	return i
}

func (w *world) roots(roots ...*x509.Certificate) {
	w.t.Helper()
	cm := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "corp-roots"},
		Data:       map[string]string{"ca.crt": string(identity.EncodeCertificates(roots))},
	}
	err := w.client.Update(w.t.Context(), cm)
	if apierrors.IsNotFound(err) {
		err = w.client.Create(w.t.Context(), cm)
	}
	require.NoError(w.t, err)
}

// tried reconciles, waits for the trial that this begins, and reconciles again.
func (w *world) tried(i *issuer) keeper.Result {
	w.t.Helper()
	w.reconcile()
	<-i.ended
	return w.reconcile()
}

// TestAnIssuerIsTriedFirst: the former CA signs until an issuer has signed one certificate as it should and its roots
// are trusted everywhere; and roots that aren't the issuer's don't replace those that are.
func TestAnIssuerIsTriedFirst(t *testing.T) {
	w := newWorld(t)
	w.reconcile()
	i := w.directly()
	r := w.reconcile()
	require.Equal(t, v1alpha1.MeshReasonTrustBundleInvalid, r.Reason)
	require.Contains(t, r.Message, "no ConfigMap fairway-system/corp-roots with key ca.crt")
	require.True(t, r.Signing)

	root := w.root().Root
	w.roots(root)
	i.says(identity.Issuef(identity.IssueDenied, "policy says no"))
	require.Equal(t, v1alpha1.MeshReasonPending, w.reconcile().Reason)
	<-i.ended
	r = w.reconcile()
	require.Equal(t, v1alpha1.MeshReasonIssuerDenied, r.Reason)
	require.Contains(t, r.Message, "policy says no")
	require.Contains(t, r.Message, "signed by the former CA (built-in)")
	require.Len(t, w.published().Roots, 1)
	require.Equal(t, []string{"spiffe://cluster.local/ns/fairway-system/sa/fairway-operator"}, i.asked)

	i.says(nil)
	w.now = w.now.Add(time.Minute)
	r = w.tried(i)
	require.True(t, r.Ready, r.Message)
	require.Contains(t, r.Message, "is trusted already and signs once its root has reached every proxy, from ")
	require.True(t, w.published().Has(root))
	require.Equal(t, identity.OriginBuiltIn, w.state().Active.Origin)
	w.now = w.now.Add(identity.DefaultPolicy.Propagation)
	r = w.reconcile()
	require.Contains(t, r.Message, `Each certificate is signed by cert-manager ClusterIssuer.cert-manager.io "corp"`)
	require.NotNil(t, w.state().Active.External)
	secret := &corev1.Secret{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.CASecret}, secret))
	require.NotContains(t, secret.Data, corev1.TLSPrivateKeyKey, "the former CA's key is gone")
	require.Len(t, i.asked, 2, "an issuer that signs isn't tried")

	i.says(identity.Issuef(identity.IssueRefused, "it doesn't lead to a root"))
	w.roots(w.root().Root)
	r = w.tried(i)
	require.Equal(t, v1alpha1.MeshReasonCertificateRefused, r.Reason)
	require.Contains(t, r.Message, "it doesn't lead to a root")
	require.True(t, w.state().Active.External.Anchors[0].Equal(root))

	w.cfg.Direct = nil
	require.True(t, w.reconcile().Ready)
	w.now = w.now.Add(identity.DefaultPolicy.Propagation)
	w.reconcile()
	require.Equal(t, identity.OriginBuiltIn, w.state().Active.Origin)
}

// In a new mesh nothing is deployed before an issuer does what it should.
func TestAnIssuerThatFailsFromTheStart(t *testing.T) {
	w := newWorld(t)
	i := w.directly()
	w.roots(w.root().Root)
	i.says(identity.Issuef(identity.IssueUnavailable, "nobody there"))
	r := w.tried(i)
	require.False(t, r.Signing)
	require.Equal(t, v1alpha1.MeshReasonIssuerUnavailable, r.Reason)
	i.says(nil)
	w.now = w.now.Add(time.Minute)
	r = w.tried(i)
	require.True(t, r.Ready, r.Message)
	require.True(t, r.Signing)
	require.NotNil(t, w.state().Active.External, "there is nothing to protect: it signs at once")
}

func TestTheIntermediateThatIsNotRenewedIsReported(t *testing.T) {
	w := newWorld(t)
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "corp"}
	w.reconcile()
	w.issue(w.root(), "corp")
	r := w.reconcile()
	require.True(t, r.Ready, r.Message)
	require.Empty(t, r.RenewalReason)
	said := func(change func(*certmanagerv1.CertificateStatus)) keeper.Result {
		cert := &certmanagerv1.Certificate{}
		require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.IssuedCA}, cert))
		cert.Status = certmanagerv1.CertificateStatus{}
		change(&cert.Status)
		require.NoError(t, w.client.Update(t.Context(), cert))
		r := w.reconcile()
		require.True(t, r.Ready, "what is there is good")
		return r
	}
	at := func(d time.Duration) *metav1.Time { return &metav1.Time{Time: w.now.Add(d)} }

	require.Empty(t, said(func(s *certmanagerv1.CertificateStatus) { s.RenewalTime = at(-time.Minute) }).RenewalReason)
	r = said(func(s *certmanagerv1.CertificateStatus) { s.RenewalTime = at(-time.Hour) })
	require.Equal(t, v1alpha1.MeshReasonIssuerUnavailable, r.RenewalReason)
	require.Contains(t, r.RenewalMessage, "not renewed since "+at(-time.Hour).UTC().Format(time.RFC3339))
	require.Contains(t, r.RenewalMessage, "in 90 d 0 h")

	for reason, want := range map[string]string{
		certmanagerv1.CertificateRequestReasonFailed: v1alpha1.MeshReasonIssuerFailed,
		certmanagerv1.CertificateRequestReasonDenied: v1alpha1.MeshReasonIssuerDenied,
	} {
		r = said(func(s *certmanagerv1.CertificateStatus) {
			s.LastFailureTime = at(-time.Minute)
			s.Conditions = []certmanagerv1.CertificateCondition{{
				Type: certmanagerv1.CertificateConditionIssuing, Status: cmmeta.ConditionFalse, Reason: reason,
				Message: "will be retried: no more intermediates.",
			}}
		})
		require.Equal(t, want, r.RenewalReason)
		require.Contains(t, r.RenewalMessage, "cert-manager says will be retried: no more intermediates. It and every")
	}
	require.Empty(t, said(func(*certmanagerv1.CertificateStatus) {}).RenewalReason)
}
