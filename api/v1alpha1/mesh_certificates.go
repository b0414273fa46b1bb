// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Certificates says who signs the mesh's certificates. None of builtin, certManager and spire means builtin.
//
// +kubebuilder:validation:XValidation:rule="!(has(self.builtin) && has(self.certManager))",message="set builtin or certManager, not both: they are two sources of the same root"
// +kubebuilder:validation:XValidation:rule="!has(self.spire) || !(has(self.builtin) || has(self.certManager))",message="set spire or builtin or certManager: where SPIRE gives the identities, nobody else signs any"
// +kubebuilder:validation:XValidation:rule="!(has(self.spire) && has(self.leafLifetime))",message="leafLifetime goes with builtin and certManager: how long SPIRE's identities live is a setting of its server and of its registration entries"
type Certificates struct {
	// The operator creates a self-signed root and keeps it in Secret "fairway-ca" of its own namespace. This is the
	// default.
	// +optional
	Builtin *BuiltinCertificates `json:"builtin,omitempty"`

	// An issuer of cert-manager gives the operator an intermediate CA, or signs each certificate itself; see mode.
	// +optional
	CertManager *CertManagerCertificates `json:"certManager,omitempty"`

	// SPIRE gives every proxy, and the operator, its identity. Only a new Mesh can ask for it, since no proxy trusts two
	// sources; spec.trustDomain must be SPIRE's.
	// +optional
	SPIRE *SPIRECertificates `json:"spire,omitempty"`

	// Lifetime of the certificate of a pod's identity. It is renewed after half to two thirds of that time. Default 24h.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10m') && duration(self) <= duration('720h')",message="leafLifetime must be from 10m to 720h"
	LeafLifetime *metav1.Duration `json:"leafLifetime,omitempty"`
}

// BuiltinCertificates has no settings yet.
type BuiltinCertificates struct{}

// SPIRECertificates says where SPIRE's agents are found. They give identities of the form
// "spiffe://<trustDomain>/ns/<namespace>/sa/<serviceAccount>", and need entries for the pods of the mesh, its
// waypoints, and service accounts fairway-operator and fairway-node of the operator's namespace.
type SPIRECertificates struct {
	// Admin socket of the SPIRE agent on each node, its setting admin_socket_path: there the agents of nodes ask for the
	// identities of their pods. They must be among its authorized_delegates. Its directory is mounted into them.
	// +required
	// +kubebuilder:validation:XValidation:rule="self.split('/').size() > 2",message="must be in a directory other than /"
	AdminSocket HostPath `json:"adminSocket"`

	// Name of the socket of the Workload API in what SPIFFE's CSI driver (csi.spiffe.io) mounts: there waypoints and the
	// operator ask for their own identities.
	// +optional
	// +kubebuilder:default=spire-agent.sock
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=64
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9_-][-._a-zA-Z0-9]*$`
	WorkloadSocket string `json:"workloadSocket,omitempty"`
}

// CertManagerMode is what an issuer of cert-manager is asked for.
//
// +kubebuilder:validation:Enum=Intermediate;Direct
type CertManagerMode string

const (
	// CertManagerModeIntermediate asks for a CA, with which the operator signs.
	CertManagerModeIntermediate CertManagerMode = "Intermediate"
	// CertManagerModeDirect asks for each certificate.
	CertManagerModeDirect CertManagerMode = "Direct"
)

// CertManagerCertificates names an issuer, and says what it is asked for.
//
// +kubebuilder:validation:XValidation:rule="(has(self.mode) && self.mode == 'Direct') == has(self.trustBundleRef)",message="mode Direct needs trustBundleRef, the roots that the issuer's certificates lead to; mode Intermediate takes the root from the CA that the issuer gives, and has no trustBundleRef"
type CertManagerCertificates struct {
	// Intermediate: the operator asks for one Certificate with isCA: true, and signs every identity with it. The issuer
	// must be one that signs intermediates (CA, Vault, ...; ACME can't). Direct: the operator makes a CertificateRequest
	// of each certificate, and never has a CA's key. The issuer must be one that takes the URI names of a request, and is
	// asked for one certificate for each service account on each node. Default Intermediate.
	// +optional
	// +kubebuilder:default=Intermediate
	Mode CertManagerMode `json:"mode,omitempty"`

	// The roots that the issuer's certificates lead to, in mode Direct: whoever has a certificate under any of them, for a
	// SPIFFE ID of the mesh, is that identity. A new root is to be added here before the issuer uses it.
	// +optional
	TrustBundleRef *TrustBundleReference `json:"trustBundleRef,omitempty"`

	// The Issuer or ClusterIssuer.
	// +required
	IssuerRef IssuerReference `json:"issuerRef"`
}

// TrustBundleReference names a ConfigMap with roots in PEM, such as trust-manager writes.
type TrustBundleReference struct {
	// Name of the ConfigMap, in the operator's namespace.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:XValidation:rule="self != 'fairway-trust-bundle'",message="fairway-trust-bundle is what the operator writes; name a ConfigMap of yours"
	Name string `json:"name"`

	// Key of the ConfigMap.
	// +optional
	// +kubebuilder:default=ca.crt
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	// +kubebuilder:validation:Pattern=`^[-._a-zA-Z0-9]+$`
	Key string `json:"key,omitempty"`
}

// IssuerReference names a cert-manager issuer. An Issuer is looked up in the operator's namespace.
//
// +kubebuilder:validation:XValidation:rule="self.group != 'cert-manager.io' || self.kind in ['Issuer', 'ClusterIssuer']",message="kind must be Issuer or ClusterIssuer in group cert-manager.io"
type IssuerReference struct {
	// Name of the issuer.
	// +required
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Name string `json:"name"`

	// Kind of the issuer: Issuer (in the operator's namespace), ClusterIssuer, or the kind of an external issuer's group.
	// +optional
	// +kubebuilder:default=ClusterIssuer
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=63
	Kind string `json:"kind,omitempty"`

	// API group of the issuer.
	// +optional
	// +kubebuilder:default=cert-manager.io
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Group string `json:"group,omitempty"`
}
