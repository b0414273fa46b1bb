// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"
)

// KindXBackend is the kind of hosts outside the cluster.
const KindXBackend = "XBackend"

// XBackendOf is the XBackend that an object of a namespace refers to; false if it refers to something else.
func XBackendOf(namespace string, ref gwv1.BackendObjectReference) (Key, bool) {
	if ref.Group == nil || *ref.Group != gwxv1alpha1.GroupName || ref.Kind == nil || *ref.Kind != KindXBackend {
		return Key{}, false
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	return Key{Namespace: namespace, Name: string(ref.Name)}, true
}

// XBackends are those that the rules of a route refer to, each once.
func XBackends(route client.Object) (out []Key) {
	add := func(ref gwv1.BackendObjectReference) {
		if key, ok := XBackendOf(route.GetNamespace(), ref); ok && !slices.Contains(out, key) {
			out = append(out, key)
		}
	}
	switch r := route.(type) {
	case *gwv1.HTTPRoute:
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				add(b.BackendObjectReference)
			}
		}
	case *gwv1.GRPCRoute:
		for _, rule := range r.Spec.Rules {
			for _, b := range rule.BackendRefs {
				add(b.BackendObjectReference)
			}
		}
	}
	return out
}

func xbackendValues[T client.Object](route T) (out []string) {
	for _, key := range XBackends(route) {
		out = append(out, key.String())
	}
	return out
}
