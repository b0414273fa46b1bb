// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package direct

import (
	"context"
	"crypto/x509"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

const (
	trustDomain = "cluster.local"
	cart        = "spiffe://cluster.local/ns/shop/sa/cart"
)

var shared = apiserver.Shared{Options: apiserver.Options{Fairway: true, CertManager: true}}

func TestMain(m *testing.M) { shared.Main(m) }

// world is a namespace of an operator on a real API server, and an issuer there.
type world struct {
	t         *testing.T
	cfg       *rest.Config
	admin     client.WithWatch
	namespace string
	root      *identity.Signer
	ref       identity.IssuerRef
	issuer    *Issuer
	authority *identity.Authority
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{t: t, cfg: shared.Config(t)}
	w.admin = w.client(w.cfg)
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "fairway-system-"}}
	require.NoError(t, w.admin.Create(t.Context(), ns))
	w.namespace = ns.Name
	var err error
	w.root, err = identity.NewRoot(trustDomain, identity.DefaultRootLifetime, time.Now())
	require.NoError(t, err)
	w.caIssuer()
	w.create(&corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "corp-roots"},
		Data:       map[string]string{"ca.crt": string(identity.EncodeCertificates([]*x509.Certificate{w.root.Root}))},
	})
	w.create(&corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "operator-1"},
		Spec: corev1.PodSpec{
			AutomountServiceAccountToken: new(false), Containers: []corev1.Container{{Name: "operator", Image: "x"}},
		},
	})
	w.run()
	return w
}

// caIssuer makes an issuer of cert-manager that signs with the root, in the operator's namespace.
func (w *world) caIssuer() {
	key, err := w.root.Key.PEM()
	require.NoError(w.t, err)
	w.create(&corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "corp"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{
			"tls.crt": identity.EncodeCertificates([]*x509.Certificate{w.root.Root}), "tls.key": key,
		},
	})
	w.create(&certmanagerv1.Issuer{
		ObjectMeta: metav1.ObjectMeta{Namespace: w.namespace, Name: "corp"},
		Spec: certmanagerv1.IssuerSpec{IssuerConfig: certmanagerv1.IssuerConfig{
			CA: &certmanagerv1.CAIssuer{SecretName: "corp"},
		}},
	})
	w.ref = identity.IssuerRef{Name: "corp", Kind: "Issuer", Group: "cert-manager.io"}
}

func (w *world) create(o client.Object) {
	w.t.Helper()
	require.NoError(w.t, w.admin.Create(w.t.Context(), o))
}

func (w *world) client(cfg *rest.Config) client.WithWatch {
	w.t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(w.t, clientgoscheme.AddToScheme(scheme))
	require.NoError(w.t, certmanagerv1.AddToScheme(scheme))
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	require.NoError(w.t, err)
	return c
}

// run starts an issuer with the rights that config/rbac gives the operator, and no others.
func (w *world) run() {
	w.t.Helper()
	for _, file := range []string{"role.yaml", "role_binding.yaml"} {
		raw, err := os.ReadFile(filepath.Join(apiserver.Root(), "config", "rbac", file))
		require.NoError(w.t, err)
		for _, o := range apiserver.Objects(w.t, strings.ReplaceAll(string(raw), names.SystemNamespace, w.namespace)) {
			if o.GetNamespace() == "" {
				o.SetName(w.namespace)
				if o.GetKind() == "ClusterRoleBinding" {
					require.NoError(w.t, unstructured.SetNestedField(o.Object, w.namespace, "roleRef", "name"))
				}
			}
			w.create(o)
		}
	}
	cfg := rest.CopyConfig(w.cfg)
	cfg.Impersonate = rest.ImpersonationConfig{
		UserName: "system:serviceaccount:" + w.namespace + ":" + names.OperatorServiceAccount,
		Groups:   []string{"system:serviceaccounts", "system:authenticated"},
	}
	w.issuer = New(Options{
		Client: w.client(cfg), Namespace: w.namespace, Pod: "operator-1", Log: testr.New(w.t),
	})
	w.authority = identity.NewAuthority(nil)
	w.authority.Delegate(w.t.Context(), w.issuer, nil)
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- w.issuer.Start(ctx) }()
	w.t.Cleanup(func() {
		cancel()
		require.NoError(w.t, <-done)
	})
	eventually.True(w.t, "the issuer knows its pod", func() bool { return w.issuer.owner.Load() != nil })
}

// adopt makes the issuer the mesh's, at once.
func (w *world) adopt() {
	w.t.Helper()
	s, err := identity.NewExternal(w.ref, identity.EncodeCertificates([]*x509.Certificate{w.root.Root}), time.Now())
	require.NoError(w.t, err)
	state, _ := identity.State{}.Step(identity.Observed{Signer: s, TrustDomain: trustDomain, LeafLifetime: time.Hour},
		identity.DefaultPolicy, time.Now())
	w.authority.Update(state)
}

// keeper keeps the CA as the leader does.
func (w *world) keeper() (*keeper.Keeper, keeper.Config) {
	return &keeper.Keeper{Client: w.admin, Reader: w.admin, Prober: w.authority}, keeper.Config{
		Namespace: w.namespace, TrustDomain: trustDomain, LeafLifetime: time.Hour,
		Direct: &v1alpha1.CertManagerCertificates{
			Mode:           v1alpha1.CertManagerModeDirect,
			IssuerRef:      v1alpha1.IssuerReference{Name: w.ref.Name, Kind: w.ref.Kind, Group: w.ref.Group},
			TrustBundleRef: &v1alpha1.TrustBundleReference{Name: "corp-roots"},
		},
	}
}

// sign asks for a certificate as an agent does.
func (w *world) sign(ctx context.Context, id string) (identity.Leaf, error) {
	key, err := identity.GenerateKey()
	require.NoError(w.t, err)
	csr, err := identity.NewCSR(id, key)
	require.NoError(w.t, err)
	return w.authority.Sign(ctx, csr, id)
}

// requests are the CertificateRequests that are there.
func (w *world) requests(look require.TestingT) []certmanagerv1.CertificateRequest {
	var list certmanagerv1.CertificateRequestList
	require.NoError(look, w.admin.List(context.Background(), &list, client.InNamespace(w.namespace)))
	return list.Items
}

// answer waits for the one request and gives it a status, as an approver or an issuer does.
func (w *world) answer(change func(*certmanagerv1.CertificateRequest)) {
	w.t.Helper()
	eventually.Passes(w.t, "a request that is answered", func(look require.TestingT) {
		all := w.requests(look)
		require.Len(look, all, 1)
		change(&all[0])
		require.NoError(look, w.admin.Status().Update(context.Background(), &all[0]))
	})
}

func says(
	cr *certmanagerv1.CertificateRequest, kind certmanagerv1.CertificateRequestConditionType, is cmmeta.ConditionStatus,
	reason, message string,
) {
	now := metav1.Now()
	cr.Status.Conditions = append(cr.Status.Conditions, certmanagerv1.CertificateRequestCondition{
		Type: kind, Status: is, Reason: reason, Message: message, LastTransitionTime: &now,
	})
}

func name(prefix string) string { return prefix + rand.String(5) }
