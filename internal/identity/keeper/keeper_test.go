// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keeper_test

import (
	"context"
	"crypto/x509"
	"errors"
	"net/http"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

const ns = "fairway-system"

type world struct {
	t      *testing.T
	client client.Client
	keeper *keeper.Keeper
	cfg    keeper.Config
	now    time.Time
	fail   error // for every write
	noCRDs bool
	gone   bool // the CRDs went after the client had learned of them: the API server answers 404
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, now: time.Now().Truncate(time.Second), cfg: keeper.Config{Namespace: ns, LeafLifetime: time.Hour}}
	scheme := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(scheme))
	require.NoError(t, certmanagerv1.AddToScheme(scheme))
	missing := func(o client.Object) error {
		if _, ok := o.(*certmanagerv1.Certificate); ok && w.noCRDs {
			return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Group: "cert-manager.io", Kind: "Certificate"}}
		}
		return nil
	}
	w.client = fake.NewClientBuilder().WithScheme(scheme).WithInterceptorFuncs(interceptor.Funcs{
		Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object,
			opts ...client.GetOption,
		) error {
			if err := missing(o); err != nil {
				return err
			}
			return c.Get(ctx, key, o, opts...)
		},
		Create: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.CreateOption) error {
			if w.fail != nil {
				return w.fail
			}
			if _, ok := o.(*certmanagerv1.Certificate); ok && w.gone {
				return apierrors.NewGenericServerResponse(http.StatusNotFound, "post", certmanagerv1.Resource("certificates"), "",
					"404 page not found", 0, true)
			}
			return c.Create(ctx, o, opts...)
		},
		Update: func(ctx context.Context, c client.WithWatch, o client.Object, opts ...client.UpdateOption) error {
			if w.fail != nil {
				return w.fail
			}
			return c.Update(ctx, o, opts...)
		},
	}).Build()
	w.keeper = &keeper.Keeper{Client: w.client, Reader: w.client, Now: func() time.Time { return w.now }}
	return w
}

func (w *world) reconcile() keeper.Result {
	w.t.Helper()
	r, err := w.keeper.Reconcile(w.t.Context(), w.cfg)
	require.NoError(w.t, err)
	return r
}

func (w *world) state() identity.State {
	w.t.Helper()
	s := &corev1.Secret{}
	require.NoError(w.t, w.client.Get(w.t.Context(), client.ObjectKey{Namespace: ns, Name: names.CASecret}, s))
	st, err := identity.DecodeState(s.Data)
	require.NoError(w.t, err)
	return st
}

func (w *world) published() identity.Bundle {
	w.t.Helper()
	cm := &corev1.ConfigMap{}
	require.NoError(w.t, w.client.Get(w.t.Context(), client.ObjectKey{Namespace: ns, Name: names.TrustBundleConfigMap},
		cm))
	b, err := identity.ParseBundle([]byte(cm.Data[names.TrustBundleKey]))
	require.NoError(w.t, err)
	return b
}

// issue does cert-manager's work: an intermediate under root into the Secret.
func (w *world) issue(root *identity.Signer, issuer string) {
	w.t.Helper()
	from := testca.Of(w.t, root.Root, root.Key.Signer())
	from.Now = func() time.Time { return w.now }
	ca := from.Intermediate(90 * 24 * time.Hour)
	keyPEM, err := identity.NewPrivateKey(ca.Key).PEM()
	require.NoError(w.t, err)
	s := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: names.IssuedCA, Annotations: map[string]string{
			certmanagerv1.IssuerNameAnnotationKey: issuer, certmanagerv1.IssuerKindAnnotationKey: "ClusterIssuer",
		}},
		Data: map[string][]byte{
			"tls.crt": ca.PEM(), "tls.key": keyPEM,
			"ca.crt": identity.EncodeCertificates([]*x509.Certificate{root.Root}),
		},
	}
	_ = w.client.Delete(w.t.Context(), s.DeepCopy())
	require.NoError(w.t, w.client.Create(w.t.Context(), s))
}

func (w *world) root() *identity.Signer {
	w.t.Helper()
	r, err := identity.NewRoot("cluster.local", identity.DefaultRootLifetime, w.now)
	require.NoError(w.t, err)
	return r
}

func TestBuiltInRoot(t *testing.T) {
	w := newWorld(t)
	r := w.reconcile()
	require.True(t, r.Ready, r.Message)
	assert.Equal(t, v1alpha1.MeshReasonIssued, r.Reason)
	first := w.state()
	assert.Equal(t, "cluster.local", first.TrustDomain)
	assert.True(t, first.Bundle().Equal(w.published()))
	assert.False(t, first.Roots[0].Published.IsZero())

	secret := &corev1.Secret{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.CASecret}, secret))
	version := secret.ResourceVersion
	w.now = w.now.Add(time.Hour)
	w.reconcile()
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.CASecret}, secret))
	assert.Equal(t, version, secret.ResourceVersion, "nothing is written when nothing changes")

	a := identity.NewAuthority(func() time.Time { return w.now })
	require.NoError(t, keeper.Load(t.Context(), w.client, ns, a))
	require.NoError(t, a.Ready())
}

func TestBuiltInRootIsRenewedInTime(t *testing.T) {
	w := newWorld(t)
	w.keeper.RootLifetime = 100 * time.Hour
	w.reconcile()
	old := w.state().Active
	w.now = w.now.Add(81 * time.Hour)
	r := w.reconcile()
	assert.Contains(t, r.Message, "trusted already")
	assert.Len(t, w.published().Roots, 2)
	assert.True(t, w.state().Active.Same(old))
	require.False(t, r.Next.IsZero())
	w.now = r.Next
	w.reconcile()
	assert.False(t, w.state().Active.Same(old))
	assert.Len(t, w.published().Roots, 2)
	w.now = w.now.Add(2 * time.Hour)
	w.reconcile()
	assert.Len(t, w.published().Roots, 1)
}

func TestCertManager(t *testing.T) {
	w := newWorld(t)
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "corp"}

	w.noCRDs = true
	r := w.reconcile()
	assert.Equal(t, v1alpha1.MeshReasonCertManagerMissing, r.Reason)
	assert.False(t, r.Ready)

	w.noCRDs = false
	r = w.reconcile()
	assert.Equal(t, v1alpha1.MeshReasonIssuerNotReady, r.Reason)
	cert := &certmanagerv1.Certificate{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.IssuedCA}, cert))
	assert.True(t, cert.Spec.IsCA)
	assert.Equal(t, "ClusterIssuer", cert.Spec.IssuerRef.Kind)
	assert.Equal(t, []string{"spiffe://cluster.local"}, cert.Spec.URIs)
	cert.Status.Conditions = []certmanagerv1.CertificateCondition{{
		Type: certmanagerv1.CertificateConditionReady, Status: cmmeta.ConditionFalse, Message: "issuer corp not found",
	}}
	cert.Spec.IsCA = false // someone's edit
	require.NoError(t, w.client.Update(t.Context(), cert))
	assert.Contains(t, w.reconcile().Message, "issuer corp not found")
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.IssuedCA}, cert))
	assert.True(t, cert.Spec.IsCA, "repaired")

	corp, other := w.root(), w.root()
	w.issue(corp, "corp")
	r = w.reconcile()
	require.True(t, r.Ready, r.Message)
	assert.True(t, w.state().Active.Root.Equal(corp.Root))
	assert.Len(t, w.state().Active.Chain, 1)

	// Renewed under the same root: the new intermediate signs once the root has been public for long enough.
	first := w.state().Active
	w.now = w.now.Add(time.Hour)
	w.issue(corp, "corp")
	w.reconcile()
	assert.False(t, w.state().Active.Same(first))
	assert.Len(t, w.published().Roots, 1)

	// Another issuer: its Secret counts only when it is the new issuer's.
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "other"}
	r = w.reconcile()
	assert.Equal(t, v1alpha1.MeshReasonIssuerNotReady, r.Reason)
	assert.True(t, r.Signing)
	assert.Contains(t, r.Message, "former CA")
	w.issue(other, "other")
	r = w.reconcile()
	assert.True(t, r.Ready)
	assert.True(t, w.state().Active.Root.Equal(corp.Root), "announced only")
	assert.Len(t, w.published().Roots, 2)
	w.now = w.now.Add(identity.DefaultPolicy.Propagation)
	w.reconcile()
	assert.True(t, w.state().Active.Root.Equal(other.Root))
	assert.Len(t, w.published().Roots, 2)
	w.now = w.now.Add(time.Hour + identity.DefaultPolicy.Margin)
	w.reconcile()
	assert.Len(t, w.published().Roots, 1)

	// Back to the built-in root; cert-manager's objects go.
	w.cfg.CertManager = nil
	w.reconcile()
	require.Error(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.IssuedCA}, cert))
	w.now = w.now.Add(identity.DefaultPolicy.Propagation)
	w.reconcile()
	assert.Equal(t, identity.OriginBuiltIn, w.state().Active.Origin)
}

// What the Mesh no longer asks for never signs, however far its announcement had come.
func TestAChangeTakenBackDuringTheAnnouncementNeverHappens(t *testing.T) {
	w := newWorld(t)
	w.reconcile()
	builtin := w.state().Active
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "corp"}
	w.reconcile()
	w.issue(w.root(), "corp")
	w.reconcile()
	require.NotNil(t, w.state().Next)
	require.Len(t, w.published().Roots, 2)

	for _, back := range []*v1alpha1.IssuerReference{{Name: "not there"}, nil} {
		w.cfg.CertManager = back
		w.reconcile()
		assert.Nil(t, w.state().Next)
		assert.Len(t, w.published().Roots, 1)
		w.now = w.now.Add(identity.DefaultPolicy.Propagation)
		w.reconcile()
		assert.True(t, w.state().Active.Same(builtin))
	}
}

// The issuer never issued, so the state doesn't know of it; still nothing of it may stay.
func TestACertificateThatWasNeverIssuedGoes(t *testing.T) {
	w := newWorld(t)
	w.reconcile()
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "mistyped"}
	r := w.reconcile()
	assert.True(t, r.Signing)
	assert.Contains(t, r.Message, `ClusterIssuer.cert-manager.io "mistyped"`)
	assert.Contains(t, r.Message, "kubectl -n "+ns+" describe certificaterequests")
	cert := client.ObjectKey{Namespace: ns, Name: names.IssuedCA}
	require.NoError(t, w.client.Get(t.Context(), cert, &certmanagerv1.Certificate{}))
	w.cfg.CertManager = nil
	assert.True(t, w.reconcile().Ready)
	require.Error(t, w.client.Get(t.Context(), cert, &certmanagerv1.Certificate{}))
}

func TestCertManagerIsRemovedWhileTheOperatorRuns(t *testing.T) {
	w := newWorld(t)
	w.gone = true
	w.reconcile()
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "corp"}
	r := w.reconcile()
	assert.True(t, r.Signing)
	assert.Equal(t, v1alpha1.MeshReasonCertManagerMissing, r.Reason)
	w.gone = false
	assert.Equal(t, v1alpha1.MeshReasonIssuerNotReady, w.reconcile().Reason)
}

func TestAnUnusableCAIsReported(t *testing.T) {
	w := newWorld(t)
	w.cfg.CertManager = &v1alpha1.IssuerReference{Name: "corp"}
	w.issue(w.root(), "corp")
	s := &corev1.Secret{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.IssuedCA}, s))
	delete(s.Data, "ca.crt")
	require.NoError(t, w.client.Update(t.Context(), s))
	r := w.reconcile()
	assert.Equal(t, v1alpha1.MeshReasonCAInvalid, r.Reason)
	assert.Contains(t, r.Message, "ca.crt is empty")
}

func TestADamagedCASecretIsNotOverwritten(t *testing.T) {
	w := newWorld(t)
	w.reconcile()
	s := &corev1.Secret{}
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.CASecret}, s))
	s.Data["tls.key"] = []byte("garbage")
	require.NoError(t, w.client.Update(t.Context(), s))
	r := w.reconcile()
	assert.Equal(t, v1alpha1.MeshReasonCAInvalid, r.Reason)
	require.NoError(t, w.client.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: names.CASecret}, s))
	assert.Equal(t, "garbage", string(s.Data["tls.key"]))

	old := w.published()
	require.NoError(t, w.client.Delete(t.Context(), s))
	r = w.reconcile()
	require.True(t, r.Ready)
	assert.Len(t, w.published().Roots, 2, "the lost CA's root stays trusted")
	assert.True(t, w.published().Has(old.Roots[0]))
	assert.Greater(t, w.published().Generation, old.Generation)
}

func TestFailedWritesAreRetried(t *testing.T) {
	w := newWorld(t)
	w.fail = errors.New("no quorum")
	_, err := w.keeper.Reconcile(t.Context(), w.cfg)
	require.ErrorContains(t, err, "no quorum")
	w.fail = nil
	require.True(t, w.reconcile().Ready)
}

func TestTheBundleIsRepaired(t *testing.T) {
	w := newWorld(t)
	w.reconcile()
	want := w.published()
	cm := keeper.TrustBundle(ns, want)
	cm.Data[names.TrustBundleKey] = "nonsense"
	require.NoError(t, w.client.Update(t.Context(), cm))
	w.reconcile()
	assert.True(t, want.Equal(w.published()))
	require.NoError(t, w.client.Delete(t.Context(), cm))
	w.reconcile()
	assert.True(t, want.Equal(w.published()))
}

func TestConfigFor(t *testing.T) {
	m := &v1alpha1.Mesh{}
	m.Spec.TrustDomain = "example.org"
	m.Spec.Certificates = &v1alpha1.Certificates{
		LeafLifetime: &metav1.Duration{Duration: 2 * time.Hour},
		CertManager:  &v1alpha1.CertManagerCertificates{IssuerRef: v1alpha1.IssuerReference{Name: "x"}},
	}
	assert.Equal(t, keeper.Config{
		Namespace: "ns", TrustDomain: "example.org", LeafLifetime: 2 * time.Hour,
		CertManager: &v1alpha1.IssuerReference{Name: "x"},
	}, keeper.ConfigFor(m, "ns"))
}
