// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Policy is what the objects of every kind of policies have; which one is in force where is decided by ingest/policy.
type Policy interface {
	client.Object
	// Targets are what the policy names, in its own namespace.
	Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName
	// Ancestors are the entries of its status.
	Ancestors() *[]gwv1.PolicyAncestorStatus
}

// PolicyOf is an object as a policy; false if it is none. Types of the Gateway API have no such methods, and get them
// here.
func PolicyOf(obj client.Object) (Policy, bool) {
	switch o := obj.(type) {
	case Policy:
		return o, true
	case *gwxv1alpha1.XBackendTrafficPolicy:
		return backendTrafficPolicy{o}, true
	case *gwv1.BackendTLSPolicy:
		return backendTLSPolicy{o}, true
	}
	return nil, false
}

// backendTrafficPolicy is always for all of a Service.
type backendTrafficPolicy struct {
	*gwxv1alpha1.XBackendTrafficPolicy
}

// Targets implements Policy.
func (p backendTrafficPolicy) Targets() (out []gwv1.LocalPolicyTargetReferenceWithSectionName) {
	for _, t := range p.Spec.TargetRefs {
		out = append(out, gwv1.LocalPolicyTargetReferenceWithSectionName{LocalPolicyTargetReference: t})
	}
	return out
}

// Ancestors implements Policy.
func (p backendTrafficPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }

type backendTLSPolicy struct{ *gwv1.BackendTLSPolicy }

// Targets implements Policy.
func (p backendTLSPolicy) Targets() []gwv1.LocalPolicyTargetReferenceWithSectionName {
	return p.Spec.TargetRefs
}

// Ancestors implements Policy.
func (p backendTLSPolicy) Ancestors() *[]gwv1.PolicyAncestorStatus { return &p.Status.Ancestors }

// TargetValue is what ByTarget lists the policies under that name an object.
func TargetValue(kind schema.GroupKind, key Key) string {
	return kind.Group + "/" + kind.Kind + "/" + key.String()
}

// TakenByOthers counts the entries of a policy's status that are other controllers'.
func TakenByOthers(obj client.Object) (taken int) {
	p, ok := PolicyOf(obj)
	if !ok {
		return 0
	}
	for _, a := range *p.Ancestors() {
		if a.ControllerName != names.MeshController {
			taken++
		}
	}
	return taken
}

// policies is the row of a kind of policies.
func policies[T client.Object](in func(*Store) **Collection[T]) row[T] {
	return row[T]{
		in: in, same: samePolicy[T], optional: true, attaches: true,
		by: indexes[T]{ByNamespace: namespaceOf[T], ByTarget: policyTargets[T]},
	}
}

// NewPolicies is a collection of a kind that is in no store, as tests have some.
func NewPolicies[T client.Object](g *memo.Graph) (out *Collection[T]) {
	policies(func(*Store) **Collection[T] { return &out }).make(nil, g)
	return out
}

// samePolicy: what others wrote into the status decides for how many targets a policy can be in force.
func samePolicy[T client.Object](old, new T) bool {
	return sameGeneration(old, new) && TakenByOthers(old) == TakenByOthers(new)
}

func policyTargets[T client.Object](obj T) []string {
	var out []string
	p, ok := PolicyOf(obj)
	if !ok {
		return nil
	}
	for _, t := range p.Targets() {
		kind := schema.GroupKind{Group: string(t.Group), Kind: string(t.Kind)}
		if v := TargetValue(kind, Key{Namespace: p.GetNamespace(), Name: string(t.Name)}); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
