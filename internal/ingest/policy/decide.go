// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package policy

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// MostAncestors is what the API has room for in a policy's status.
const MostAncestors = 16

// Policies are all policies of a kind, with everything decided.
type Policies[T any] struct {
	kind Kind[T]
	// policy is nil where there is none.
	policy *memo.Func[types.NamespacedName, *Policy[T]]
	// InForce is the policy of an attachment; nil where there is none.
	InForce *memo.Func[model.Attachment, *Policy[T]]
	// Report on a policy, for its status; nil where it is gone.
	Report *memo.Func[types.NamespacedName, *Report]

	holders *memo.Func[Object, holders[T]]
}

// holders are the policies that have an object: at most one all of it, and one each section.
type holders[T any] struct {
	bySection map[string]*Policy[T] // "" for all of it
	sections  []Section
}

// Define decides about the policies of a kind.
func Define[T any](g *memo.Graph, kind Kind[T]) *Policies[T] {
	p := &Policies[T]{kind: kind}
	p.policy = memo.Define(g, kind.Name, deepEqual[*Policy[T]], kind.Get)
	p.holders = memo.Define(g, kind.Name+"Holders", deepEqual[holders[T]], p.decide)
	p.InForce = memo.Define(g, kind.Name+"InForce", deepEqual[*Policy[T]], p.inForce)
	p.Report = memo.Define(g, kind.Name+"Report", deepEqual[*Report], p.report)
	return p
}

// Get reads a policy, in force or not; nil where there is none.
func (p *Policies[T]) Get(c *memo.Ctx, name types.NamespacedName) *Policy[T] {
	return p.policy.Get(c, name)
}

func deepEqual[V any](a, b V) bool { return reflect.DeepEqual(a, b) }

// decide between the policies that name an object. What one asks for and what another does are never mixed: a policy of
// a section goes before one of the whole, as if that weren't there; of two that name the same, the one with precedence
// has it, and the other is refused.
func (p *Policies[T]) decide(c *memo.Ctx, o Object) holders[T] {
	sections, _ := p.find(c, o)
	out := holders[T]{bySection: map[string]*Policy[T]{}, sections: sections}
	var naming []*Policy[T]
	for _, name := range p.kind.Naming(c, o) {
		if policy := p.policy.Get(c, name); policy != nil {
			naming = append(naming, policy)
		}
	}
	slices.SortFunc(naming, func(a, b *Policy[T]) int { return Compare(a.Created, a.Ref, b.Created, b.Ref) })
	for _, policy := range naming {
		for n, t := range targetsOf(policy) {
			if t.Object == o && out.bySection[t.section] == nil && p.refused(c, policy, n, t) == nil {
				out.bySection[t.section] = policy
			}
		}
	}
	return out
}

// of is the policy that is in force for a section.
func (h holders[T]) of(s Section) *Policy[T] {
	if own := h.bySection[s.Name]; own != nil {
		return own
	}
	return h.bySection[""]
}

func (p *Policies[T]) inForce(c *memo.Ctx, at model.Attachment) *Policy[T] {
	o := Object{Service, at.Port.ServiceName()}
	if at.Listener != (model.Listener{}) {
		o = Object{Gateway, at.Listener.Gateway}
	}
	h := p.holders.Get(c, o)
	for _, s := range h.sections {
		at.Listener.Hostname = s.At.Listener.Hostname // a listener's policy is that of all hosts its routes ask for
		if s.At == at {
			return h.of(s)
		}
	}
	return nil
}

func (p *Policies[T]) find(c *memo.Ctx, o Object) ([]Section, *conditions.Verdict) {
	find, ok := p.kind.Targets[o.GroupKind]
	if !ok {
		var kinds []string
		for k := range p.kind.Targets {
			kinds = append(kinds, k.String())
		}
		slices.Sort(kinds)
		return nil, refuse(gwv1.PolicyReasonInvalid, "A %s can't target a %s: supported kinds are %s",
			p.kind.Name, o.GroupKind, strings.Join(kinds, ", "))
	}
	return find(c, o.NamespacedName)
}

// refused says why a policy can't have a target, whatever other policies there are; nil if it can. n is its place among
// the policy's targets.
func (p *Policies[T]) refused(c *memo.Ctx, policy *Policy[T], n int, t Target) *conditions.Verdict {
	if t.Namespace != policy.Ref.Namespace {
		// Not even whether it is there: that is nobody's business in another namespace.
		return refuse(gwv1.PolicyReasonInvalid, "A %s can only target objects in its own namespace", p.kind.Name)
	}
	if n >= MostAncestors-policy.Taken {
		return refuse(gwv1.PolicyReasonInvalid, "The policy's status has no room for another ancestor")
	}
	sections, verdict := p.find(c, t.Object)
	if verdict != nil || t.section == "" || slices.ContainsFunc(sections, func(s Section) bool {
		return s.Name == t.section
	}) {
		return verdict
	}
	return refuse(gwv1.PolicyReasonTargetNotFound, "%s has no section %q", t.Object, t.section)
}

func refuse(reason gwv1.PolicyConditionReason, format string, args ...any) *conditions.Verdict {
	return &conditions.Verdict{Reason: string(reason), Message: fmt.Sprintf(format, args...)}
}

// targetsOf a policy, each once: its status can have one entry only for what it names twice.
func targetsOf[T any](policy *Policy[T]) (out []Target) {
	for _, t := range policy.Targets {
		if !slices.Contains(out, t) {
			out = append(out, t)
		}
	}
	return out
}

func (p *Policies[T]) report(c *memo.Ctx, name types.NamespacedName) *Report {
	policy := p.policy.Get(c, name)
	if policy == nil {
		return nil
	}
	out := &Report{Ref: policy.Ref, UID: policy.UID, Generation: policy.Generation}
	for n, t := range targetsOf(policy) {
		out.Ancestors = append(out.Ancestors, p.ancestor(c, policy, n, t))
	}
	return out
}

func (p *Policies[T]) ancestor(c *memo.Ctx, policy *Policy[T], n int, t Target) Ancestor {
	out, message := Ancestor{Ref: t.ancestor()}, ""
	bad := p.refused(c, policy, n, t)
	if bad == nil {
		h := p.holders.Get(c, t.Object)
		if holder := h.bySection[t.section]; holder.Ref != policy.Ref {
			bad = refuse(gwv1.PolicyReasonConflicted,
				"%s has the same target and takes precedence (the oldest policy does, then the first by name)", nameOf(holder.Ref))
		} else {
			out.At, message = h.at(policy, t)
		}
	}
	if bad == nil && policy.Invalid != "" {
		bad = refuse(cmp.Or(policy.Reason, gwv1.PolicyReasonInvalid), "%s", policy.Invalid)
	}
	out.Conditions = append([]metav1.Condition{conditions.Judged(
		string(gwv1.PolicyConditionAccepted), bad, string(gwv1.PolicyReasonAccepted), message, policy.Generation)},
		policy.Besides...)
	return out
}

// at lists where a policy is in force because of a target that it has, and says so.
func (h holders[T]) at(policy *Policy[T], t Target) (at []model.Attachment, message string) {
	message = "In force for " + t.String()
	if t.section != "" {
		message += ", section " + t.section
	}
	for _, s := range h.sections {
		switch own := h.bySection[s.Name]; {
		case t.section == s.Name, t.section == "" && own == nil:
			at = append(at, s.At)
		case t.section == "" && own.Ref != policy.Ref:
			message += fmt.Sprintf(", except for section %s, which %s targets by name", s.Name, nameOf(own.Ref))
		}
	}
	return at, message
}

func nameOf(ref model.ObjectRef) string { return ref.Kind + " " + ref.Namespace + "/" + ref.Name }
