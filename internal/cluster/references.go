// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"maps"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// ConfigMaps are not read like other kinds: a cluster has thousands, of which the mesh has to do with few, and some are
// large. Only those are read that some object refers to, each by a watch of its own, as kubelets do it.

// MostReferences bounds how many ConfigMaps the objects of a namespace may refer to in all, for each costs the API
// server and the operator a watch; and MostModules how many for modules, for each may have a MiB.
const (
	MostReferences = 64
	MostModules    = 16
)

// CAKey is where a ConfigMap has the certificates of authorities, and ModuleKey where it has a module of an
// HTTPExtension. Nothing else of one is read.
const (
	CAKey     = "ca.crt"
	ModuleKey = "module.wasm"
)

// Reference to a ConfigMap of the object's own namespace: for certificates, or for a module.
type Reference struct {
	Name   string
	Module bool
}

// References of an object to ConfigMaps.
func References(obj client.Object) []Reference {
	switch o := obj.(type) {
	case *gwv1.BackendTLSPolicy:
		return toCAs(o.Spec.Validation)
	case *gwxv1alpha1.XBackend:
		if o.Spec.TLS != nil {
			return toCAs(o.Spec.TLS.Validation)
		}
	case *v1alpha1.HTTPExtension:
		if o.Spec.Wasm != nil {
			return []Reference{{Name: o.Spec.Wasm.ConfigMapRef.Name, Module: true}}
		}
	}
	return nil
}

func toCAs(v gwv1.BackendTLSPolicyValidation) (out []Reference) {
	for _, name := range CAReferences(v) {
		out = append(out, Reference{Name: name})
	}
	return out
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

// Readable are those of the references of one namespace's objects that are followed: the first ones by name, so that
// all who decide agree.
func Readable(referred map[Reference]bool) (out []Reference) {
	all := slices.SortedFunc(maps.Keys(referred), compareReferences)
	for _, module := range []bool{false, true} {
		most := MostReferences
		if module {
			most = MostModules
		}
		of := slices.DeleteFunc(slices.Clone(all), func(r Reference) bool { return r.Module != module })
		out = append(out, of[:min(len(of), most)]...)
	}
	return out
}

func compareReferences(a, b Reference) int { return strings.Compare(a.Name, b.Name) }

// TrimConfigMap keeps what is read of one: a module only where one is asked for.
func TrimConfigMap(in *corev1.ConfigMap, module bool) *corev1.ConfigMap {
	out := &corev1.ConfigMap{}
	out.Namespace, out.Name, out.UID, out.ResourceVersion = in.Namespace, in.Name, in.UID, in.ResourceVersion
	if ca, ok := in.Data[CAKey]; ok {
		out.Data = map[string]string{CAKey: ca}
	}
	if code, ok := in.BinaryData[ModuleKey]; ok && module {
		out.BinaryData = map[string][]byte{ModuleKey: code}
	}
	return out
}

func sameConfigMap(old, new *corev1.ConfigMap) bool {
	was, had := old.Data[CAKey]
	is, has := new.Data[CAKey]
	before, hadModule := old.BinaryData[ModuleKey]
	now, hasModule := new.BinaryData[ModuleKey]
	return was == is && had == has && hadModule == hasModule && bytes.Equal(before, now)
}
