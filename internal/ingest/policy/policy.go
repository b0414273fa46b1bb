// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package policy decides which policy is in force where: what a targetRef names, which of several policies has it, and
// what each one's status is to say (GEP-713, of direct policies). It knows no kind of policy, and not what policies ask
// for; it is told, by a Kind. What it shares with routes, which are attached likewise, is the reading of references and
// the order of precedence.
package policy

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Policy is one object of a Kind.
type Policy[T any] struct {
	Ref        model.ObjectRef
	UID        types.UID
	Generation int64
	Created    time.Time
	Targets    []Target
	// Taken is how many entries of its status are other controllers'.
	Taken int
	// Invalid says why what it asks for can't be carried out. It has its targets all the same, and whoever carries it out
	// refuses what it was meant to guard: a mistake must not put a policy in force that gives way to it.
	Invalid string
	// Reason of Invalid; PolicyReasonInvalid if empty.
	Reason gwv1.PolicyConditionReason
	// Besides Accepted, conditions that it has whatever becomes of its targets.
	Besides []metav1.Condition
	// Content is what it asks for.
	Content T
}

// Kind says what there is to know of one kind of policies. Its functions are pure, as ingest's are.
type Kind[T any] struct {
	Name string
	// Get reads a policy; nil where there is none.
	Get func(c *memo.Ctx, name types.NamespacedName) *Policy[T]
	// Naming lists the policies that name an object, in any order.
	Naming func(c *memo.Ctx, o Object) []types.NamespacedName
	// Targets are the kinds of objects that may be targeted, and how the sections of one are found.
	Targets map[schema.GroupKind]Find
}

// Find lists the sections of an object, or says why it can't be a target.
type Find func(c *memo.Ctx, name types.NamespacedName) ([]Section, *conditions.Verdict)

// Section is a part of an object that a policy can be in force for: a port of a Service, a listener of a Gateway.
type Section struct {
	Name string
	At   model.Attachment
}

// Report is what the status of a policy is to say.
type Report struct {
	Ref model.ObjectRef
	// UID tells the policy from a later one of the same name.
	UID        types.UID
	Generation int64
	// Ancestors has an entry for each target. The status may have no room for all; then it is the first that it shows, and
	// that are in force.
	Ancestors []Ancestor
}

// Ancestor is one entry. A direct policy's ancestors are its targets.
type Ancestor struct {
	Ref gwv1.ParentReference
	// Conditions without times, and without what only proxies know.
	Conditions []metav1.Condition
	// At is where the policy is in force because of this target.
	At []model.Attachment
}

// Compare orders what competes for an attachment, the one with precedence first: by age, then by namespace and name.
// The Gateway API says so for routes, and for policies.
func Compare(a time.Time, aRef model.ObjectRef, b time.Time, bRef model.ObjectRef) int {
	return cmp.Or(a.Compare(b), cmp.Compare(aRef.Namespace, bRef.Namespace),
		cmp.Compare(aRef.Name, bRef.Name), cmp.Compare(aRef.Kind, bRef.Kind))
}
