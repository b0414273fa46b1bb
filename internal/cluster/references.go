// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"maps"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// ConfigMaps are not read like other kinds: a cluster has thousands, of which the mesh has to do with few, and some are
// large. Only those are read that some object refers to, each by a watch of its own, as kubelets do it.

// MostReferences bounds how many ConfigMaps the objects of a namespace may refer to in all, for each costs the API
// server and the operator a watch.
const MostReferences = 64

// CAKey is where a ConfigMap has the certificates of authorities. Nothing else of one is read.
const CAKey = "ca.crt"

// References are the ConfigMaps of its own namespace that an object refers to, by name.
func References(obj client.Object) []string {
	switch o := obj.(type) {
	case *gwv1.BackendTLSPolicy:
		return CAReferences(o.Spec.Validation)
	case *gwxv1alpha1.XBackend:
		if o.Spec.TLS != nil {
			return CAReferences(o.Spec.TLS.Validation)
		}
	}
	return nil
}

// CAReferences are the ConfigMaps that certificates are verified by.
func CAReferences(v gwv1.BackendTLSPolicyValidation) (out []string) {
	for _, ref := range v.CACertificateRefs {
		if IsConfigMap(ref) && !slices.Contains(out, string(ref.Name)) {
			out = append(out, string(ref.Name))
		}
	}
	return out
}

// IsConfigMap tells whether a reference is to a ConfigMap.
func IsConfigMap(ref gwv1.LocalObjectReference) bool {
	return ref.Group == "" && ref.Kind == "ConfigMap"
}

// Readable are those of the ConfigMaps that the objects of one namespace refer to that may be read: the first ones by
// name, so that all who decide agree.
func Readable(referred map[string]bool) []string {
	out := slices.Sorted(maps.Keys(referred))
	return out[:min(len(out), MostReferences)]
}

// TrimConfigMap keeps what is read of one.
func TrimConfigMap(in *corev1.ConfigMap) *corev1.ConfigMap {
	out := &corev1.ConfigMap{}
	out.Namespace, out.Name, out.UID, out.ResourceVersion = in.Namespace, in.Name, in.UID, in.ResourceVersion
	if ca, ok := in.Data[CAKey]; ok {
		out.Data = map[string]string{CAKey: ca}
	}
	return out
}

func sameConfigMap(old, new *corev1.ConfigMap) bool {
	was, had := old.Data[CAKey]
	is, has := new.Data[CAKey]
	return was == is && had == has
}
