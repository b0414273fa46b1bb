// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"fmt"
	"reflect"
	"strings"
	"time"

	certmanagerv1 "github.com/cert-manager/cert-manager/pkg/apis/certmanager/v1"
	cmmeta "github.com/cert-manager/cert-manager/pkg/apis/meta/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/leading"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// An intermediate lives for 90 days and is renewed 30 days before its end: no leaf (at most 720 h) is cut short.
	issuedDuration    = 90 * 24 * time.Hour
	issuedRenewBefore = 30 * 24 * time.Hour
)

// certificate is the one object by which the mesh asks cert-manager for an intermediate CA.
func certificate(cfg Config) *certmanagerv1.Certificate {
	return &certmanagerv1.Certificate{
		TypeMeta: metav1.TypeMeta{
			APIVersion: certmanagerv1.SchemeGroupVersion.String(),
			Kind:       certmanagerv1.CertificateKind,
		},
		ObjectMeta: objectMeta(cfg.Namespace, names.IssuedCA),
		Spec: certmanagerv1.CertificateSpec{
			IsCA:        true,
			CommonName:  commonName(cfg.TrustDomain),
			URIs:        []string{"spiffe://" + cfg.TrustDomain},
			SecretName:  names.IssuedCA,
			Duration:    &metav1.Duration{Duration: issuedDuration},
			RenewBefore: &metav1.Duration{Duration: issuedRenewBefore},
			Usages:      []certmanagerv1.KeyUsage{certmanagerv1.UsageCertSign, certmanagerv1.UsageCRLSign},
			PrivateKey: &certmanagerv1.CertificatePrivateKey{
				Algorithm: certmanagerv1.ECDSAKeyAlgorithm, Size: 256,
				// A new key with each renewal; the operator keeps the old one until the new one may sign.
				RotationPolicy: certmanagerv1.RotationPolicyAlways,
			},
			IssuerRef: cmmeta.IssuerReference{
				Name: cfg.CertManager.Name, Kind: cfg.CertManager.Kind, Group: cfg.CertManager.Group,
			},
		},
	}
}

// commonName stays within the 64 characters that X.520 allows.
func commonName(trustDomain string) string {
	cn := "Fairway mesh CA for " + trustDomain
	if len(cn) > 64 {
		return "Fairway mesh CA"
	}
	return cn
}

// origin names an issuer in the CA's state.
func origin(ref *v1alpha1.IssuerReference) string {
	return issuerOf(*ref).String()
}

// withDefaults fills in what the schema's defaults would.
func withDefaults(ref v1alpha1.IssuerReference) v1alpha1.IssuerReference {
	if ref.Kind == "" {
		ref.Kind = certmanagerv1.ClusterIssuerKind
	}
	if ref.Group == "" {
		ref.Group = certmanagerv1.SchemeGroupVersion.Group
	}
	return ref
}

// certManager asks cert-manager for the intermediate CA and reads it if it is there.
func (k *Keeper) certManager(ctx context.Context, cfg Config) (*identity.Signer, *problem, error) {
	named := withDefaults(*cfg.CertManager)
	ref := &named
	cfg.CertManager = ref
	k.dropped = false
	cert, err := k.ensureCertificate(ctx, cfg)
	// Not found: the CRD went after the client had learned of it.
	if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) {
		return nil, &problem{
			v1alpha1.MeshReasonCertManagerMissing,
			"The Mesh asks for a CA from cert-manager, but the cluster doesn't serve certificates.cert-manager.io. Install " +
				"cert-manager, or remove spec.certificates.certManager.",
		}, nil
	}
	if err != nil {
		return nil, nil, err
	}
	secret := &corev1.Secret{}
	err = k.Reader.Get(ctx, client.ObjectKey{Namespace: cfg.Namespace, Name: names.IssuedCA}, secret)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("read Secret %s/%s: %w", cfg.Namespace, names.IssuedCA, err)
	}
	if len(secret.Data[corev1.TLSCertKey]) == 0 || !issuedBy(secret, ref) { // or not there at all
		return nil, waiting(cfg, ref, cert), nil
	}
	signer, err := identity.ParseSigner(origin(ref), secret.Data[corev1.TLSCertKey], secret.Data[corev1.TLSPrivateKeyKey],
		secret.Data[cmmeta.TLSCAKey])
	if err != nil {
		return nil, &problem{
			v1alpha1.MeshReasonCAInvalid,
			fmt.Sprintf("The CA in Secret %s/%s, issued by %s, can't be used: %v.",
				cfg.Namespace, names.IssuedCA, origin(ref), err),
		}, nil
	}
	if !signer.Usable(k.now()) {
		return nil, &problem{
			v1alpha1.MeshReasonCAInvalid,
			fmt.Sprintf("The CA in Secret %s/%s, issued by %s, is only valid from %s to %s, root included.",
				cfg.Namespace, names.IssuedCA, origin(ref), signer.Certificate().NotBefore.UTC().Format(time.RFC3339),
				signer.NotAfter().UTC().Format(time.RFC3339)),
		}, nil
	}
	k.unrenewed = renewal(cert, signer, k.now())
	return signer, nil, nil
}

func waiting(cfg Config, ref *v1alpha1.IssuerReference, cert *certmanagerv1.Certificate) *problem {
	msg := fmt.Sprintf("Waiting for %s to issue Certificate %s/%s.", origin(ref), cfg.Namespace, names.IssuedCA)
	for _, c := range cert.Status.Conditions {
		if c.Status != cmmeta.ConditionTrue && c.Message != "" {
			msg += fmt.Sprintf(" cert-manager says %s: %s.", c.Type, strings.TrimSuffix(c.Message, "."))
		}
	}
	// The reason for a long wait stands in the CertificateRequest, which the operator has no right to read.
	msg += fmt.Sprintf(" If this lasts, check that the issuer exists, is ready and may sign CAs: kubectl -n %s describe "+
		"certificaterequests.", cfg.Namespace)
	return &problem{v1alpha1.MeshReasonIssuerNotReady, msg}
}

// issuedBy tells whether the Secret's content is of the issuer that is wanted now; after a change of issuerRef it
// stays that of the former one for a while.
func issuedBy(s *corev1.Secret, ref *v1alpha1.IssuerReference) bool {
	a := s.Annotations
	group := a[certmanagerv1.IssuerGroupAnnotationKey]
	if group == "" {
		group = certmanagerv1.SchemeGroupVersion.Group
	}
	return a[certmanagerv1.IssuerNameAnnotationKey] == ref.Name && a[certmanagerv1.IssuerKindAnnotationKey] == ref.Kind &&
		group == ref.Group
}

func (k *Keeper) ensureCertificate(ctx context.Context, cfg Config) (*certmanagerv1.Certificate, error) {
	want := certificate(cfg)
	cert := &certmanagerv1.Certificate{}
	err := k.Reader.Get(ctx, client.ObjectKeyFromObject(want), cert)
	if apierrors.IsNotFound(err) {
		if err := k.Client.Create(ctx, want); err != nil {
			return nil, fmt.Errorf("create Certificate %s/%s: %w", cfg.Namespace, names.IssuedCA, err)
		}
		return want, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read Certificate %s/%s: %w", cfg.Namespace, names.IssuedCA, err)
	}
	if reflect.DeepEqual(cert.Spec, want.Spec) {
		return cert, nil
	}
	// The whole spec is ours: what someone else added to it could change what the CA is for.
	cert.Spec = want.Spec
	if err := k.Client.Update(ctx, cert); err != nil {
		return nil, fmt.Errorf("update Certificate %s/%s: %w", cfg.Namespace, names.IssuedCA, err)
	}
	return cert, nil
}

// dropCertificate removes the Certificate and its Secret when the built-in root is wanted again, whether or not the
// issuer ever issued. Once both were found gone there is no need to look again: only the leader's keeper asks for them.
func (k *Keeper) dropCertificate(ctx context.Context, cfg Config) error {
	term := leading.Term(ctx)
	if k.dropped && k.droppedIn == term {
		return nil
	}
	gone := true
	for _, o := range []client.Object{
		&certmanagerv1.Certificate{ObjectMeta: objectMeta(cfg.Namespace, names.IssuedCA)},
		&corev1.Secret{ObjectMeta: objectMeta(cfg.Namespace, names.IssuedCA)},
	} {
		err := k.Client.Delete(ctx, o)
		if err != nil && !apierrors.IsNotFound(err) && !meta.IsNoMatchError(err) {
			return fmt.Errorf("delete %T %s/%s: %w", o, cfg.Namespace, names.IssuedCA, err)
		}
		gone = gone && err != nil
	}
	k.dropped, k.droppedIn = gone, term
	return nil
}
