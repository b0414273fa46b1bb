// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// The kinds of objects that have attachments.
var (
	Service = schema.GroupKind{Kind: "Service"}
	Gateway = schema.GroupKind{Group: gwv1.GroupName, Kind: "Gateway"}
)

// Object is what a reference names.
type Object struct {
	schema.GroupKind
	types.NamespacedName
}

// String is for people.
func (o Object) String() string { return o.Kind + " " + o.NamespacedName.String() }

// Target is what a targetRef, or the parentRef of a route, names.
type Target struct {
	Object
	// section of the object; "" for all of it.
	section string
}

// Local reads a targetRef to an object in the policy's namespace.
func Local(namespace string, ref gwv1.LocalPolicyTargetReference) Target {
	return target(ref.Group, ref.Kind, namespace, ref.Name, nil)
}

// LocalSection reads a targetRef to an object in the policy's namespace, or to a section of it.
func LocalSection(namespace string, ref gwv1.LocalPolicyTargetReferenceWithSectionName) Target {
	return target(ref.Group, ref.Kind, namespace, ref.Name, ref.SectionName)
}

// Namespaced reads a targetRef that may say a namespace.
func Namespaced(namespace string, ref gwv1.NamespacedPolicyTargetReference) Target {
	return target(ref.Group, ref.Kind, or(ref.Namespace, namespace), ref.Name, nil)
}

// Parent reads a parentRef of a route, but for its port. Unless it says otherwise, it names a Gateway.
func Parent(namespace string, ref gwv1.ParentReference) Target {
	group, kind := or(ref.Group, gwv1.Group(Gateway.Group)), or(ref.Kind, gwv1.Kind(Gateway.Kind))
	return target(group, kind, or(ref.Namespace, namespace), ref.Name, ref.SectionName)
}

// ancestor is the inverse of Parent: how a status names a target.
func (t Target) ancestor() gwv1.ParentReference {
	group, kind, namespace := gwv1.Group(t.Group), gwv1.Kind(t.Kind), gwv1.Namespace(t.Namespace)
	out := gwv1.ParentReference{Group: &group, Kind: &kind, Namespace: &namespace, Name: gwv1.ObjectName(t.Name)}
	if section := gwv1.SectionName(t.section); section != "" {
		out.SectionName = &section
	}
	return out
}

func target(g gwv1.Group, k gwv1.Kind, namespace string, name gwv1.ObjectName, section *gwv1.SectionName) Target {
	return Target{
		Object: Object{
			GroupKind:      schema.GroupKind{Group: string(g), Kind: string(k)},
			NamespacedName: types.NamespacedName{Namespace: namespace, Name: string(name)},
		},
		section: string(or(section, gwv1.SectionName(""))),
	}
}

// or is what a reference says, and else what it means without.
func or[S, T ~string](said *S, unsaid T) T {
	if said == nil {
		return unsaid
	}
	return T(*said)
}
