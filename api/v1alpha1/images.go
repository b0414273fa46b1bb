// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import corev1 "k8s.io/api/core/v1"

// Images of proxies, and how nodes pull them.
type Images struct {
	// Envoy of the proxies: a released image, of version 1.40 or later. Default: the one that the operator was installed
	// with. Proxies of an older version stay out of service, and say so.
	// +optional
	// +kubebuilder:validation:MaxLength=512
	// +kubebuilder:validation:Pattern=`^[a-zA-Z0-9][-a-zA-Z0-9._:/@]*$`
	// +kubebuilder:validation:XValidation:rule="!self.matches('[:-]v?(0|1[.]([0-9]|[123][0-9]))([.][0-9]+)?([-@].*)?$')",message="Envoy must be of version 1.40 or later"
	Envoy string `json:"envoy,omitempty"`

	// Secrets of type kubernetes.io/dockerconfigjson by which nodes pull the proxies' images. They are looked for in the
	// namespace of the pods: the operator's for node proxies, the Gateway's for a waypoint.
	// +optional
	// +listType=map
	// +listMapKey=name
	// +kubebuilder:validation:MaxItems=8
	PullSecrets []corev1.LocalObjectReference `json:"pullSecrets,omitempty"`
}

// EnvoyOr is the image of proxies, or another where none is given.
func (i *Images) EnvoyOr(other string) string {
	if i == nil || i.Envoy == "" {
		return other
	}
	return i.Envoy
}

// PullSecretsOr are the Secrets to pull images by, or others where none are given.
func (i *Images) PullSecretsOr(others []corev1.LocalObjectReference) []corev1.LocalObjectReference {
	if i == nil || i.PullSecrets == nil {
		return others
	}
	return i.PullSecrets
}
