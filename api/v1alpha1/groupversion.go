// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
)

var (
	// GroupVersion is the group and version of the kinds in this package.
	GroupVersion = schema.GroupVersion{Group: "fairway.dev", Version: "v1alpha1"}

	schemeBuilder = runtime.NewSchemeBuilder(addKnownTypes)

	// AddToScheme registers the kinds of this package.
	AddToScheme = schemeBuilder.AddToScheme
)

// Kinds of this package, as references name them.
const (
	KindMesh            = "Mesh"
	KindProxyParameters = "ProxyParameters"
)

// known are the kinds; each is registered where it is.
var known []runtime.Object

func register(objects ...runtime.Object) { known = append(known, objects...) }

func addKnownTypes(scheme *runtime.Scheme) error {
	scheme.AddKnownTypes(GroupVersion, known...)
	metav1.AddToGroupVersion(scheme, GroupVersion)
	return nil
}
