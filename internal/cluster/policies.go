// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

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

// TargetValue is what ByTarget lists the policies under that name an object.
func TargetValue(kind schema.GroupKind, key Key) string {
	return kind.Group + "/" + kind.Kind + "/" + key.String()
}

// TakenByOthers counts the entries of a policy's status that are other controllers'.
func TakenByOthers(p Policy) (taken int) {
	for _, a := range *p.Ancestors() {
		if a.ControllerName != names.MeshController {
			taken++
		}
	}
	return taken
}

// policies is the row of a kind of policies.
func policies[T Policy](in func(*Store) **Collection[T]) row[T] {
	return row[T]{
		in: in, same: samePolicy[T], optional: true, attaches: true,
		by: indexes[T]{ByNamespace: namespaceOf[T], ByTarget: policyTargets[T]},
	}
}

// NewPolicies is a collection of a kind that is in no store, as tests have some.
func NewPolicies[T Policy](g *memo.Graph) (out *Collection[T]) {
	policies(func(*Store) **Collection[T] { return &out }).make(nil, g)
	return out
}

// samePolicy: what others wrote into the status decides for how many targets a policy can be in force.
func samePolicy[T Policy](old, new T) bool {
	return sameGeneration(old, new) && TakenByOthers(old) == TakenByOthers(new)
}

func policyTargets[T Policy](p T) []string {
	var out []string
	for _, t := range p.Targets() {
		kind := schema.GroupKind{Group: string(t.Group), Kind: string(t.Kind)}
		if v := TargetValue(kind, Key{Namespace: p.GetNamespace(), Name: string(t.Name)}); !slices.Contains(out, v) {
			out = append(out, v)
		}
	}
	return out
}
