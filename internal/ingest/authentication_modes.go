// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Modes is how far agents are with a policy on whether pods take plain text. Agents decide and carry it out by
// themselves (package member); each says on its pods which modes they have.
type Modes struct {
	// Pods that the policy is for and that are captured, on so many Nodes; Done of them have the modes that they should.
	Pods, Nodes, Done int
	// Late is the first of the others.
	Late GuardedPod
	// Overridden pods have, somewhere, another mode than the policy says: others go before it.
	Overridden int
	// Uncaptured pods aren't guarded, sorted.
	Uncaptured []cluster.Key
}

// podMode is what a pod's mode should be, and whether its agent says that it is.
type podMode struct {
	// should has the modes of a decision, and nothing else of it.
	should member.Decision
	done   bool
}

// modesOfNamespace are the policies of a namespace that say something of modes, sorted.
func (i *Ingest) modesOfNamespace(c *memo.Ctx, namespace string) (out []v1alpha1.AuthenticationPolicy) {
	for _, key := range i.store.Authentication.By(c, cluster.ByNamespace, namespace) {
		if p, ok := i.store.Authentication.Get(c, key); ok && p.Spec.MTLS != nil {
			out = append(out, v1alpha1.AuthenticationPolicy{ObjectMeta: p.ObjectMeta, Spec: p.Spec})
		}
	}
	return out
}

func (i *Ingest) podMode(c *memo.Ctx, key cluster.Key) *podMode {
	pod, ok := i.store.Pods.Get(c, key)
	mesh, present := i.store.Meshes.Get(c, cluster.Key{Name: names.Mesh})
	if !ok || !present {
		return nil
	}
	d := member.Decide(pod, i.namespace(c, key.Namespace), mesh, names.SystemNamespace,
		i.modesIn.Get(c, key.Namespace)...)
	return &podMode{should: member.Decision{Strict: d.Strict, Except: d.Except}, done: member.Carries(pod, d)}
}

// modeReport is what the status of a policy says that is about modes; nil if it isn't there, or about something else.
func (i *Ingest) modeReport(c *memo.Ctx, key cluster.Key) *Report {
	p, ok := i.store.Authentication.Get(c, key)
	if !ok || p.Spec.MTLS == nil {
		return nil
	}
	out := &Report{
		Ref: model.ObjectRef{Kind: cluster.NameOf(p), Namespace: key.Namespace, Name: key.Name}, UID: p.UID,
		Generation: p.Generation,
	}
	if !i.Settings.Get(c, struct{}{}).present {
		return out
	}
	var of policy.Object
	of.Namespace = key.Namespace
	selectors, err := p.OfPods()
	of.Kind = kindNamespace
	refused := i.refusedTarget(c, of, false)
	e := &Enforcement{}
	entry := ParentReport{Ref: accessAncestor(of), Enforcement: e}
	if refused == nil && err != nil {
		refused = &Verdict{Reason: string(gwv1.PolicyReasonInvalid), Message: err.Error() +
			"; until that is mended, all pods of the namespace refuse plain text"}
		entry.Unprogrammed = &Verdict{Reason: refused.Reason, Message: "the policy is not accepted: all pods of the " +
			"namespace refuse plain text until it is mended"}
	} else if refused != nil {
		entry.Unprogrammed = &Verdict{Reason: refused.Reason, Message: "the policy is not accepted"}
	}
	accepted := "in force for pods of namespace " + key.Namespace + " by their labels"
	if p.OfNamespace() {
		selectors, accepted = append(selectors, labels.Everything()), "in force for all pods of namespace "+key.Namespace
	}
	entry.Conditions = append(entry.Conditions, conditions.Judged(string(gwv1.PolicyConditionAccepted), refused,
		string(gwv1.PolicyReasonAccepted), accepted, p.Generation))
	if refused == nil {
		e.Modes = i.modesOf(c, p, selectors)
	}
	out.Parents = append(out.Parents, entry)
	return out
}

// modesOf counts the pods that a policy is for.
func (i *Ingest) modesOf(c *memo.Ctx, p *v1alpha1.AuthenticationPolicy, selectors []labels.Selector) *Modes {
	out, nodes := &Modes{}, map[string]bool{}
	keys := slices.Clone(i.store.Pods.By(c, cluster.ByNamespace, p.Namespace))
	slices.SortFunc(keys, byName)
	for _, key := range keys {
		pod, ok := i.store.Pods.Get(c, key)
		if ok && slices.ContainsFunc(selectors, func(s labels.Selector) bool {
			return s.Matches(labels.Set(pod.Labels))
		}) {
			i.countMode(c, p, pod, out, nodes)
		}
	}
	out.Nodes = len(nodes)
	return out
}

func (i *Ingest) countMode(
	c *memo.Ctx, p *v1alpha1.AuthenticationPolicy, pod *corev1.Pod, out *Modes, nodes map[string]bool,
) {
	key := cluster.Key{Namespace: pod.Namespace, Name: pod.Name}
	switch {
	case member.Finished(pod) || member.Waypoint(pod) || len(pod.Status.PodIPs) == 0:
		return
	case !i.takesMTLS(c, pod):
		out.Uncaptured = append(out.Uncaptured, key)
		return
	}
	mode := i.modeOf.Get(c, key)
	if mode == nil {
		return
	}
	out.Pods++
	nodes[pod.Spec.NodeName] = true
	if mode.done {
		out.Done++
	} else if out.Late == (GuardedPod{}) {
		out.Late = GuardedPod{Pod: key, Node: pod.Spec.NodeName}
	}
	if mode.differs(p.Spec.MTLS) {
		out.Overridden++
	}
}

// differs tells whether a pod has another mode than a policy says.
func (m *podMode) differs(says *v1alpha1.MTLSAuthentication) bool {
	is := func(mode v1alpha1.MTLSMode) bool { return mode == v1alpha1.MTLSModeStrict }
	if says.Mode != "" && m.should.Strict != is(says.Mode) {
		return true
	}
	return slices.ContainsFunc(says.Ports, func(at v1alpha1.MTLSPort) bool {
		return m.should.StrictAt(uint16(at.Port)) != is(at.Mode) //nolint:gosec // the schema bounds it
	})
}

// defineModes has policies on modes reported on.
func (i *Ingest) defineModes(g *memo.Graph) {
	i.modesIn = memo.Define(g, "modesIn", reflectEqual[[]v1alpha1.AuthenticationPolicy], i.modesOfNamespace)
	i.modeOf = memo.Define(g, "modeOf", reflectEqual[*podMode], i.podMode)
	kind := cluster.NameOf((*v1alpha1.AuthenticationPolicy)(nil))
	other := i.policyReports[kind]
	i.policyReports[kind] = func(c *memo.Ctx, key cluster.Key) *Report {
		if r := i.modeReport(c, key); r != nil {
			return r
		}
		return other(c, key)
	}
}
