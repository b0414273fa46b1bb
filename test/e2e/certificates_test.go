// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net/http"
	"slices"
	"testing"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	. "github.com/onsi/gomega" //nolint:revive // assertions read as sentences
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/rand"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The tests of this file change the CA of the whole mesh, so they run alone: none is parallel.

const (
	// certManagerNamespace is where cert-manager runs, and finds the Secrets of ClusterIssuers.
	certManagerNamespace = "cert-manager"
	// shortPropagation replaces the five minutes for which a new root is published before its CA signs. It leaves room for
	// refreshTrust, which is much faster than the kubelet by itself.
	shortPropagation = 10 * time.Second
)

// The mesh changes over to a CA from cert-manager and back without a failed request.
func TestCertManagerGivesTheCA(t *testing.T) {
	g := NewWithT(t)
	certs := certManager(t)
	issuer := certs.issuer(t)
	before := trustBundle(t)
	operatorFlags(t, "--ca-propagation="+shortPropagation.String(), "--ca-margin=1s")
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
	g.Expect(said).To(ContainSubstring("signed by the CA from built-in"), "the new CA is announced first")
	ours := certs.ofOperator(t)
	g.Expect(ours).To(HaveLen(1))
	g.Expect(ours[0].Spec.IsCA).To(BeTrue())
	g.Expect(ours[0].Spec.IssuerRef.Name).To(Equal(issuer.name))
	both := trustBundle(t)
	g.Expect(both).To(ContainElement(equalTo(issuer.root)))
	for _, root := range before {
		g.Expect(both).To(ContainElement(equalTo(root)), "leaves under it are still in use")
	}
	refreshTrust(t, issuer.root)

	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from cert-manager", issuer.name)
	start := since()
	s.server("late")
	s.service("late", "late")
	s.captured("late")
	s.answers("client", "http://late/", "late")
	s.answers("late", "http://server/", "server")
	overMTLS(s, start, s.pod("late"), identityOf(s, "client"), identityOf(s, "late"))
	chain := leafOf(s, "late")
	g.Expect(chain).To(HaveLen(2), "the leaf and the intermediate")
	g.Expect(chain[1]).To(equalTo(certs.issued(t)))
	verifies(g, chain, issuer.root, identityOf(s, "late"))

	setIssuer(t, "")
	g.Eventually(func() []certmanagerv1.Certificate { return certs.ofOperator(t) }).Should(BeEmpty())
	g.Eventually(func() []*x509.Certificate { return trustBundle(t) }).Should(HaveLen(len(both) + 1))
	after := trustBundle(t)
	refreshTrust(t, after[len(after)-1])
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from built-in")
	s.server("last")
	s.service("last", "last")
	s.captured("last")
	s.answers("late", "http://last/", "last")
	verifies(g, leafOf(s, "last"), after[len(after)-1], identityOf(s, "last"))
	g.Expect(trustBundle(t)).To(ContainElement(equalTo(issuer.root)), "the pod from before has a leaf under it")
	meshReady(t)
	total := steady.end()
	t.Logf("while the CA changed twice: %v", total)
	g.Expect(total.failures()).To(BeEmpty(), "of %v", total)
}

// An issuer that isn't there is reported, and the mesh goes on with the CA that it has.
func TestAnIssuerThatDoesNotExistIsReported(t *testing.T) {
	g := NewWithT(t)
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
		missing, "check that the issuer exists", "describe certificaterequests", "certificates are signed by the former CA (built-in)")
	g.Expect(trustBundle(t)).To(Equal(before))
	s.server("late")
	s.service("late", "late")
	s.captured("late")
	s.answers("client", "http://late/", "late")
	g.Expect(leafOf(s, "late")).NotTo(BeEmpty())

	setIssuer(t, "")
	certificatesSay(t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from built-in")
	g.Eventually(func() []certmanagerv1.Certificate { return certs.ofOperator(t) }).Should(BeEmpty(), "nothing is left that could be issued later")
	g.Expect(trustBundle(t)).To(Equal(before))
	meshReady(t)
	total := steady.end()
	g.Expect(total.failures()).To(BeEmpty(), "of %v", total)
}

// certManagerAPI reads and writes cert-manager's objects.
type certManagerAPI struct{ client.Client }

// certManager finds cert-manager. Without it the test is skipped.
func certManager(t *testing.T) certManagerAPI {
	t.Helper()
	scheme := runtime.NewScheme()
	g := NewWithT(t)
	g.Expect(certmanagerv1.AddToScheme(scheme)).To(Succeed())
	c, err := client.New(world.config, client.Options{Scheme: scheme})
	g.Expect(err).NotTo(HaveOccurred())
	err = c.List(t.Context(), &certmanagerv1.ClusterIssuerList{})
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		t.Skip("skipped: the cluster has no cert-manager (make cert-manager brings it to the dev cluster)")
	}
	g.Expect(err).NotTo(HaveOccurred())
	return certManagerAPI{c}
}

// authority is a ClusterIssuer that signs with a root of its own.
type authority struct {
	name string
	root *x509.Certificate
}

// issuer makes an authority: a self-signed ClusterIssuer signs a root, with which another ClusterIssuer signs. They go
// when the test ends.
func (c certManagerAPI) issuer(t *testing.T) authority {
	t.Helper()
	g := NewWithT(t)
	name := "e2e-" + rand.String(5)
	object := metav1.ObjectMeta{Namespace: certManagerNamespace, Name: name}
	c.create(t, &certmanagerv1.ClusterIssuer{ObjectMeta: metaOf(name + "-root"), Spec: certmanagerv1.IssuerSpec{
		IssuerConfig: certmanagerv1.IssuerConfig{SelfSigned: &certmanagerv1.SelfSignedIssuer{}},
	}})
	c.create(t, &certmanagerv1.Certificate{ObjectMeta: object, Spec: certmanagerv1.CertificateSpec{
		IsCA: true, CommonName: name, SecretName: name,
		PrivateKey: &certmanagerv1.CertificatePrivateKey{Algorithm: certmanagerv1.ECDSAKeyAlgorithm, Size: 256},
		IssuerRef:  cmmeta.IssuerReference{Name: name + "-root", Kind: certmanagerv1.ClusterIssuerKind},
	}})
	issuer := &certmanagerv1.ClusterIssuer{ObjectMeta: metaOf(name), Spec: certmanagerv1.IssuerSpec{
		IssuerConfig: certmanagerv1.IssuerConfig{CA: &certmanagerv1.CAIssuer{SecretName: name}},
	}}
	t.Cleanup(func() { _ = world.client.Delete(context.Background(), &corev1.Secret{ObjectMeta: object}) })
	var root []*x509.Certificate
	g.Eventually(func(g Gomega) {
		var err error
		root, err = certificatesIn(t.Context(), certManagerNamespace, name)
		g.Expect(err).NotTo(HaveOccurred())
		g.Expect(root).To(HaveLen(1))
	}).Should(Succeed(), "cert-manager signs the root")
	c.create(t, issuer)
	g.Eventually(func(g Gomega) {
		g.Expect(c.Get(t.Context(), client.ObjectKeyFromObject(issuer), issuer)).To(Succeed())
		g.Expect(issuer.Status.Conditions).To(ContainElement(HaveField("Status", cmmeta.ConditionTrue)))
	}).Should(Succeed(), "the issuer is ready")
	return authority{name, root[0]}
}

func (c certManagerAPI) create(t *testing.T, o client.Object) {
	t.Helper()
	NewWithT(t).Expect(c.Create(t.Context(), o)).To(Succeed())
	t.Cleanup(func() { _ = c.Delete(context.Background(), o) })
}

// ofOperator lists the Certificates that the operator made, wherever.
func (c certManagerAPI) ofOperator(t *testing.T) []certmanagerv1.Certificate {
	t.Helper()
	var list certmanagerv1.CertificateList
	NewWithT(t).Expect(c.List(t.Context(), &list, client.MatchingLabels{names.LabelManagedBy: names.ManagedBy})).To(Succeed())
	return list.Items
}

// issued is the operator's intermediate.
func (c certManagerAPI) issued(t *testing.T) *x509.Certificate {
	t.Helper()
	chain, err := certificatesIn(t.Context(), names.SystemNamespace, names.IssuedCA)
	NewWithT(t).Expect(err).NotTo(HaveOccurred())
	return chain[0]
}

// certificatesIn reads tls.crt of a Secret.
func certificatesIn(ctx context.Context, namespace, name string) ([]*x509.Certificate, error) {
	var s corev1.Secret
	if err := world.client.Get(ctx, client.ObjectKey{Namespace: namespace, Name: name}, &s); err != nil {
		return nil, err
	}
	return parse(s.Data[corev1.TLSCertKey])
}

func parse(text []byte) ([]*x509.Certificate, error) {
	var out []*x509.Certificate
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		out = append(out, c)
	}
	return out, nil
}

// equalTo matches a certificate by its content.
func equalTo(want *x509.Certificate) OmegaMatcher {
	return WithTransform(func(c *x509.Certificate) string { return string(c.Raw) }, Equal(string(want.Raw)))
}

// trustBundle is what the mesh trusts, as published.
func trustBundle(t *testing.T) []*x509.Certificate {
	t.Helper()
	g := NewWithT(t)
	var cm corev1.ConfigMap
	g.Expect(world.client.Get(t.Context(), client.ObjectKey{Namespace: names.SystemNamespace, Name: names.TrustBundleConfigMap}, &cm)).To(Succeed())
	roots, err := parse([]byte(cm.Data[names.TrustBundleKey]))
	g.Expect(err).NotTo(HaveOccurred())
	return roots
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
	NewWithT(t).Expect(world.client.Patch(context.WithoutCancel(t.Context()), mesh, client.RawPatch("application/merge-patch+json", []byte(change)))).To(Succeed())
}

// keepCertificates puts Mesh.spec.certificates back when the test ends.
func keepCertificates(t *testing.T) {
	t.Helper()
	meshReady(t)
	g := NewWithT(t)
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	g.Expect(world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh)).To(Succeed())
	text, err := json.Marshal(mesh.Spec.Certificates)
	g.Expect(err).NotTo(HaveOccurred())
	t.Cleanup(func() {
		patchMesh(t, `{"spec":{"certificates":null}}`) // a merge alone would keep what the test added
		patchMesh(t, fmt.Sprintf(`{"spec":{"certificates":%s}}`, text))
	})
}

// certificatesSay waits until CertificatesReady is of a status and reason, and its message holds all of the texts.
func certificatesSay(t *testing.T, status metav1.ConditionStatus, reason string, texts ...string) string {
	t.Helper()
	var message string
	NewWithT(t).Eventually(func(g Gomega) {
		mesh := &v1alpha1.Mesh{}
		g.Expect(world.client.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, mesh)).To(Succeed())
		c := meta.FindStatusCondition(mesh.Status.Conditions, v1alpha1.MeshConditionCertificatesReady)
		g.Expect(c).NotTo(BeNil())
		g.Expect(c.ObservedGeneration).To(Equal(mesh.Generation))
		g.Expect(c.Status).To(Equal(status), c.Message)
		g.Expect(c.Reason).To(Equal(reason), c.Message)
		for _, text := range texts {
			g.Expect(c.Message).To(ContainSubstring(text))
		}
		message = c.Message
	}).Should(Succeed())
	return message
}

func meshReady(t *testing.T) {
	t.Helper()
	NewWithT(t).Eventually(func(g Gomega) {
		mesh := &v1alpha1.Mesh{}
		g.Expect(world.client.Get(t.Context(), client.ObjectKey{Name: names.Mesh}, mesh)).To(Succeed())
		g.Expect(mesh.Status.ObservedGeneration).To(Equal(mesh.Generation))
		g.Expect(meta.IsStatusConditionTrue(mesh.Status.Conditions, v1alpha1.MeshConditionReady)).To(BeTrue(), "%v", mesh.Status.Conditions)
	}).Should(Succeed())
}

// operatorFlags restarts the operator with further flags, and without them when the test ends.
func operatorFlags(t *testing.T, flags ...string) {
	t.Helper()
	d := &appsv1.Deployment{}
	key := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.OperatorService}
	NewWithT(t).Expect(world.client.Get(t.Context(), key, d)).To(Succeed())
	args := d.Spec.Template.Spec.Containers[0].Args
	set := func(ctx context.Context, g Gomega, args []string) {
		g.Expect(world.client.Get(ctx, key, d)).To(Succeed())
		patch := client.StrategicMergeFrom(d.DeepCopy())
		d.Spec.Template.Spec.Containers[0].Args = args
		g.Expect(world.client.Patch(ctx, d, patch)).To(Succeed())
		g.Eventually(func(g Gomega) {
			g.Expect(world.client.Get(ctx, key, d)).To(Succeed())
			g.Expect(d.Status.ObservedGeneration).To(Equal(d.Generation))
			g.Expect(d.Status.UpdatedReplicas).To(Equal(*d.Spec.Replicas))
			g.Expect(d.Status.Replicas).To(Equal(*d.Spec.Replicas))
			g.Expect(d.Status.AvailableReplicas).To(Equal(*d.Spec.Replicas))
		}).WithTimeout(2 * time.Minute).Should(Succeed())
	}
	t.Cleanup(func() { set(context.Background(), NewWithT(t), args) })
	set(t.Context(), NewWithT(t), append(slices.Clone(args), flags...))
}

// refreshTrust waits until every node proxy trusts a root. It makes the kubelet refresh the mounted bundle at once,
// which a changed annotation does; by itself it takes a minute or two.
func refreshTrust(t *testing.T, root *x509.Certificate) {
	t.Helper()
	for _, pod := range nodePods(t) {
		patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"metadata":{"annotations":{"fairway.dev/e2e":%q}}}`, rand.String(5)))
		NewWithT(t).Expect(world.client.Patch(t.Context(), pod.DeepCopy(), patch)).To(Succeed())
	}
	for node, pod := range nodePods(t) {
		address := podPort(t, pod, names.PortAdmin)
		NewWithT(t).Eventually(func(g Gomega) {
			g.Expect(secretOf(g, address, names.TrustBundleSecret)).To(ContainElement(equalTo(root)))
		}).Should(Succeed(), "the proxy of %s trusts the new root", node)
	}
}

// leafOf is the chain that the proxy of a pod's node shows for it.
func leafOf(s *space, app string) []*x509.Certificate {
	s.t.Helper()
	address := podPort(s.t, nodePods(s.t)[s.pod(app).Spec.NodeName], names.PortAdmin)
	var chain []*x509.Certificate
	NewWithT(s.t).Eventually(func(g Gomega) {
		chain = secretOf(g, address, identityOf(s, app))
		g.Expect(chain).NotTo(BeEmpty())
	}).Should(Succeed())
	return chain
}

// secretOf reads the certificates of one secret from Envoy's configuration.
func secretOf(g Gomega, address, name string) []*x509.Certificate {
	res, err := (&http.Client{Timeout: 5 * time.Second}).Get("http://" + address + introspect.PathEnvoy + "config_dump?resource=dynamic_active_secrets")
	g.Expect(err).NotTo(HaveOccurred())
	defer res.Body.Close()
	type pemData struct {
		Bytes []byte `json:"inline_bytes"`
	}
	var dump struct {
		Configs []struct {
			Name   string `json:"name"`
			Secret struct {
				Certificate struct {
					Chain pemData `json:"certificate_chain"`
				} `json:"tls_certificate"`
				Validation struct {
					Trusted pemData `json:"trusted_ca"`
				} `json:"validation_context"`
			} `json:"secret"`
		} `json:"configs"`
	}
	g.Expect(json.NewDecoder(res.Body).Decode(&dump)).To(Succeed())
	for _, c := range dump.Configs {
		if c.Name == name {
			out, err := parse(append(c.Secret.Certificate.Chain.Bytes, c.Secret.Validation.Trusted.Bytes...))
			g.Expect(err).NotTo(HaveOccurred())
			return out
		}
	}
	return nil
}

// verifies checks that a chain leads to a root, and whose it is.
func verifies(g Gomega, chain []*x509.Certificate, root *x509.Certificate, id string) {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AddCert(root)
	for _, c := range chain[1:] {
		between.AddCert(c)
	}
	_, err := chain[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	g.Expect(err).NotTo(HaveOccurred())
	g.Expect(chain[0].URIs).To(ConsistOf(HaveField("String()", id)))
}
