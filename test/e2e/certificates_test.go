// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"slices"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The tests of this file change the CA of the whole mesh, so they run alone: none is parallel.

// certManagerNamespace is where cert-manager runs, and finds the Secrets of ClusterIssuers.
const certManagerNamespace = "cert-manager"

// The mesh changes over to a CA from cert-manager and back without a failed request.
func TestCertManagerGivesTheCA(t *testing.T) {
	certs := certManager(t)
	issuer := certs.issuer(t)
	before := trustBundle(t)
	keepCertificates(t)
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	steady := s.steady("client", "http://server/")

	setIssuer(t, issuer.name)
	said := certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, issuer.name)
	require.Contains(t, said, "signed by the CA from built-in", "the new CA is announced first")
	ours := certs.ofOperator(t)
	require.Len(t, ours, 1)
	require.True(t, ours[0].Spec.IsCA)
	require.Equal(t, issuer.name, ours[0].Spec.IssuerRef.Name)
	both := trustBundle(t)
	require.True(t, slices.ContainsFunc(both, issuer.root.Equal), "the new root is trusted")
	for _, root := range before {
		require.True(t, slices.ContainsFunc(both, root.Equal), "leaves under it are still in use")
	}
	announced(t, issuer.root)
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from cert-manager", issuer.name)
	start := since()
	s.server("late")
	s.service("late", "late")
	s.captured("late")
	s.answers("client", "http://late/", "late")
	s.answers("late", "http://server/", "server")
	overMTLS(s, start, s.pod("late"), identityOf(s, "client"), identityOf(s, "late"))
	chain := leafOf(s, "late")
	require.Len(t, chain, 2, "the leaf and the intermediate, which cert-manager issued: it alone signs by this root")
	verifies(t, chain, issuer.root, identityOf(s, "late"))

	setIssuer(t, "")
	eventually.Passes(t, "no Certificate of the operator", func(look require.TestingT) {
		require.Empty(look, certs.ofOperator(t))
	})
	builtin := rootBesides(t, both)
	announced(t, builtin)
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from built-in")
	s.server("last")
	s.service("last", "last")
	s.captured("last")
	s.answers("late", "http://last/", "last")
	verifies(t, leafOf(s, "last"), builtin, identityOf(s, "last"))
	require.True(t, slices.ContainsFunc(trustBundle(t), issuer.root.Equal), "the pod from before has a leaf under it")
	meshReady(t)
	total := steady.end()
	t.Logf("while the CA changed twice: %v", total)
	require.Empty(t, total.failures(), "of %v", total)
}

// An issuer signs each certificate itself: the mesh changes over and back without a failed request, nobody has a CA's
// key meanwhile, and nothing of what was asked for is left.
func TestAnIssuerSignsEachCertificate(t *testing.T) {
	certs := certManager(t)
	issuer := certs.issuer(t)
	keepCertificates(t)
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	steady := s.steady("client", "http://server/")

	setDirect(t, issuer.name)
	certificatesSay(t, metav1.ConditionFalse, v1alpha1.MeshReasonTrustBundleInvalid, issuer.name+" with key ca.crt",
		"signed by the former CA (built-in)")
	roots := &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: issuer.name},
		Data: map[string]string{"ca.crt": string(pem.EncodeToMemory(&pem.Block{
			Type: "CERTIFICATE", Bytes: issuer.root.Raw,
		}))},
	}
	require.NoError(t, world.client.Create(t.Context(), roots))
	t.Cleanup(func() { _ = world.client.Delete(context.Background(), roots) })
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from built-in", issuer.name)
	announced(t, issuer.root)
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "Each certificate is signed by", issuer.name)
	ca := &corev1.Secret{}
	key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.CASecret}
	require.NoError(t, world.client.Get(t.Context(), key, ca))
	require.NotContains(t, ca.Data, corev1.TLSPrivateKeyKey)

	s.server("late")
	s.service("late", "late")
	s.captured("late")
	s.answers("client", "http://late/", "late")
	s.answers("late", "http://server/", "server")
	chain := leafOf(s, "late")
	require.Len(t, chain, 1, "the leaf alone: the root signs")
	verifies(t, chain, issuer.root, identityOf(s, "late"))
	eventually.Passes(t, "no request is left", func(look require.TestingT) {
		var left certmanagerv1.CertificateRequestList
		require.NoError(look, certs.List(t.Context(), &left, client.InNamespace(names.SystemNamespace)))
		require.Empty(look, left.Items)
	})
	meshReady(t)

	before := trustBundle(t)
	setIssuer(t, "")
	announced(t, rootBesides(t, before))
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from built-in")
	s.answers("client", "http://late/", "late")
	meshReady(t)
	total := steady.end()
	t.Logf("while the source changed twice: %v", total)
	require.Empty(t, total.failures(), "of %v", total)
}

// setDirect makes a ClusterIssuer sign each certificate; the ConfigMap of its roots has the same name.
func setDirect(t *testing.T, name string) {
	t.Helper()
	patchMesh(t, fmt.Sprintf(`{"spec":{"certificates":{"builtin":null,"certManager":{"mode":"Direct",`+
		`"issuerRef":{"name":%q},"trustBundleRef":{"name":%q}}}}}`, name, name))
}

// An issuer that isn't there is reported, and the mesh goes on with the CA that it has.
func TestAnIssuerThatDoesNotExistIsReported(t *testing.T) {
	certs := certManager(t)
	keepCertificates(t)
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	steady := s.steady("client", "http://server/")
	before := trustBundle(t)

	missing := "e2e-missing-" + rand.String(5)
	setIssuer(t, missing)
	certificatesSay(t, metav1.ConditionFalse, v1alpha1.MeshReasonIssuerNotReady,
		missing, "check that the issuer exists", "describe certificaterequests",
		"certificates are signed by the former CA (built-in)")
	require.Equal(t, before, trustBundle(t))
	s.server("late")
	s.service("late", "late")
	s.captured("late")
	s.answers("client", "http://late/", "late")
	require.NotEmpty(t, leafOf(s, "late"))

	setIssuer(t, "")
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from built-in")
	eventually.Passes(t, "nothing is left that could be issued later", func(look require.TestingT) {
		require.Empty(look, certs.ofOperator(t))
	})
	require.Equal(t, before, trustBundle(t))
	meshReady(t)
	total := steady.end()
	require.Empty(t, total.failures(), "of %v", total)
}

// certManagerAPI reads and writes cert-manager's objects.
type certManagerAPI struct{ client.Client }

// certManager finds cert-manager. Without it the test is skipped.
func certManager(t *testing.T) certManagerAPI {
	t.Helper()
	scheme := runtime.NewScheme()
	require.NoError(t, certmanagerv1.AddToScheme(scheme))
	c, err := client.New(world.config, client.Options{Scheme: scheme})
	require.NoError(t, err)
	err = c.List(t.Context(), &certmanagerv1.ClusterIssuerList{})
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		t.Skip("skipped: the cluster has no cert-manager (make cert-manager brings it to the dev cluster)")
	}
	require.NoError(t, err)
	return certManagerAPI{c}
}

// authority is a ClusterIssuer that signs with a root of its own.
type authority struct {
	name string
	root *x509.Certificate
}

// issuer makes an authority. Its root is the test's own: cert-manager may sign a root of its own anew while nobody
// expects it. Secret and issuer go when the test ends.
func (c certManagerAPI) issuer(t *testing.T) authority {
	t.Helper()
	name := "e2e-" + rand.String(5)
	root, err := identity.NewRoot(name, 90*24*time.Hour, time.Now())
	require.NoError(t, err)
	key, err := root.Key.PEM()
	require.NoError(t, err)
	secret := &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Namespace: certManagerNamespace, Name: name},
		Type:       corev1.SecretTypeTLS,
		Data: map[string][]byte{
			corev1.TLSCertKey:       identity.EncodeCertificates([]*x509.Certificate{root.Root}),
			corev1.TLSPrivateKeyKey: key,
		},
	}
	require.NoError(t, world.client.Create(t.Context(), secret))
	t.Cleanup(func() { _ = world.client.Delete(context.Background(), secret) })
	issuer := &certmanagerv1.ClusterIssuer{ObjectMeta: metaOf(name), Spec: certmanagerv1.IssuerSpec{
		IssuerConfig: certmanagerv1.IssuerConfig{CA: &certmanagerv1.CAIssuer{SecretName: name}},
	}}
	c.create(t, issuer)
	eventually.Passes(t, "the issuer is ready", func(look require.TestingT) {
		require.NoError(look, c.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer))
		require.True(look, slices.ContainsFunc(issuer.Status.Conditions, func(c certmanagerv1.IssuerCondition) bool {
			return c.Status == cmmeta.ConditionTrue
		}))
	})
	return authority{name, root.Root}
}

func (c certManagerAPI) create(t *testing.T, o client.Object) {
	t.Helper()
	require.NoError(t, c.Create(t.Context(), o))
	t.Cleanup(func() { _ = c.Delete(context.Background(), o) })
}

// ofOperator lists the Certificates that the operator made, wherever.
func (c certManagerAPI) ofOperator(t *testing.T) []certmanagerv1.Certificate {
	t.Helper()
	var list certmanagerv1.CertificateList
	require.NoError(t, c.List(t.Context(), &list, client.MatchingLabels{names.LabelManagedBy: names.ManagedBy}))
	return list.Items
}

// setIssuer makes a ClusterIssuer the source of the mesh's CA; an empty name brings the built-in root back.
func setIssuer(t *testing.T, name string) {
	t.Helper()
	change := `{"spec":{"certificates":{"certManager":null,"builtin":{}}}}`
	if name != "" {
		change = fmt.Sprintf(`{"spec":{"certificates":{"builtin":null,"certManager":{"issuerRef":{"name":%q}}}}}`, name)
	}
	patchMesh(t, change)
}

func patchMesh(t *testing.T, change string) {
	t.Helper()
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	patch := client.RawPatch("application/merge-patch+json", []byte(change))
	require.NoError(t, world.client.Patch(lasting(t), mesh, patch))
}

// keepCertificates puts Mesh.spec.certificates back when the test ends, however it does, and waits until who signed
// before signs again: the next test finds the mesh as this one did.
func keepCertificates(t *testing.T) {
	t.Helper()
	meshReady(t)
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	text, err := json.Marshal(mesh.Spec.Certificates)
	require.NoError(t, err)
	before := stateOfCA(t, t)
	require.Empty(t, before.NextOrigin, "a change is under way")
	t.Cleanup(func() {
		patchMesh(t, `{"spec":{"certificates":null}}`) // a merge alone would keep what the test added
		patchMesh(t, fmt.Sprintf(`{"spec":{"certificates":%s}}`, text))
		eventually.Passes(t, "who signed before the test signs, or will", func(look require.TestingT) {
			now := stateOfCA(t, look)
			will := now.NextOrigin
			if will == "" {
				will = now.ActiveOrigin
			}
			require.Equal(look, before.ActiveOrigin, will)
		})
		if stateOfCA(t, t).NextOrigin != "" {
			announced(t, trustBundle(t)...)
		}
		eventually.Passes(t, "it signs", func(look require.TestingT) {
			require.Empty(look, stateOfCA(t, look).NextOrigin)
		})
		meshReady(t)
	})
}

// certificatesSay waits until CertificatesReady is of a status and reason, and its message holds all of the texts.
func certificatesSay(t *testing.T, status metav1.ConditionStatus, reason string, texts ...string) string {
	t.Helper()
	var message string
	eventually.Passes(t, fmt.Sprintf("CertificatesReady is %s, for %s", status, reason), func(look require.TestingT) {
		mesh := &v1alpha1.Mesh{}
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, mesh))
		c := meta.FindStatusCondition(mesh.Status.Conditions, v1alpha1.MeshConditionCertificatesReady)
		require.NotNil(look, c)
		require.Equal(look, mesh.Generation, c.ObservedGeneration)
		require.Equal(look, status, c.Status, c.Message)
		require.Equal(look, reason, c.Reason, c.Message)
		for _, text := range texts {
			require.Contains(look, c.Message, text)
		}
		message = c.Message
	})
	return message
}

func meshReady(t *testing.T) {
	t.Helper()
	eventually.Passes(t, "the Mesh is Ready", func(look require.TestingT) {
		mesh := &v1alpha1.Mesh{}
		require.NoError(look, world.client.Get(lasting(t), client.ObjectKey{Name: names.Mesh}, mesh))
		require.Equal(look, mesh.Generation, mesh.Status.ObservedGeneration)
		require.True(look, meta.IsStatusConditionTrue(mesh.Status.Conditions, v1alpha1.MeshConditionReady),
			"%v", mesh.Status.Conditions)
	})
}
