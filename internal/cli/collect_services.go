// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/member"
)

// judgeServices names the Services that refuse every connection for want of the waypoint that they are to go through.
// It is worked out from the objects, so that it is said before the operator has, and while it doesn't run; what the
// operator said in a condition counts where that can't be done, and where it has not taken it back.
func (k *collector) judgeServices() {
	var byNamespace groups // Services that what their namespace's label says is said of
	for i := range k.services {
		s := &k.services[i]
		name := s.Namespace + "/" + s.Name
		b, what := k.bindingOf(s)
		switch {
		case what == "" && b.NoEffect != "":
			k.report.Elsewhere = append(k.report.Elsewhere, "Service "+name+": "+oneLine(b.NoEffect)+": the label has no effect")
		case what == "":
		case b.Problem != "" && ofNamespace(s, k.namespaces[s.Namespace]) &&
			b.Problem == k.meaning.NamedProblem(b.Waypoint):
			byNamespace.add(s.Namespace, s.Name)
		default:
			k.problem(serviceRefuses, "Service "+name, "Service %s: %s", name, what)
		}
	}
	for _, n := range k.namespaceNames() {
		k.judgeNamespaceLabel(n, byNamespace.members[n])
	}
	slices.Sort(k.report.Elsewhere)
	k.report.Elsewhere = slices.Compact(k.report.Elsewhere)
}

// bindingOf is where connections to a Service go, and what is wrong if they are refused.
func (k *collector) bindingOf(s *corev1.Service) (b explain.Binding, refused string) {
	c := meta.FindStatusCondition(s.Status.Conditions, v1alpha1.ServiceConditionWaypointBound)
	closed := c != nil && c.Status == metav1.ConditionFalse &&
		(c.Reason == v1alpha1.ServiceReasonWaypointMissing || c.Reason == v1alpha1.ServiceReasonOverBudget)
	if k.meaning == nil && c != nil {
		waypoint, _ := waypointName(s, k.namespaces[s.Namespace])
		switch {
		case closed:
			return b, oneLine(c.Message)
		case c.Reason == v1alpha1.ServiceReasonNotSupported:
			b.NoEffect = strings.TrimSuffix(c.Message, ": the label has no effect.")
		default:
			b.Waypoint = types.NamespacedName{Namespace: s.Namespace, Name: waypoint}
			b.Pending = c.Reason == v1alpha1.ServiceReasonWaypointPending
		}
	}
	if k.meaning == nil {
		return b, ""
	}
	b = k.meaning.Binding(client.ObjectKeyFromObject(s))
	switch {
	case b.Problem != "":
		return b, b.Problem + "; until then, " + b.Connections + " are refused"
	case closed:
		return b, "connections are refused until the operator takes back what it has last said: " + oneLine(c.Message)
	}
	return b, ""
}

// ofLabel tells whether a label names the waypoint of a Service.
func ofLabel(s *corev1.Service, n *corev1.Namespace) bool {
	use := member.UseOf(s, n)
	return !use.Automatic() && !use.None()
}

// ofNamespace tells whether the label of a Service's namespace names its waypoint.
func ofNamespace(s *corev1.Service, n *corev1.Namespace) bool {
	return !member.UseOf(s, n).Own && ofLabel(s, n)
}

func (k *collector) namespaceNames() (out []string) {
	for n := range k.namespaces {
		out = append(out, n)
	}
	slices.Sort(out)
	return out
}

// judgeNamespaceLabel says once for all Services of a namespace that the waypoint which its label names can't serve
// them, also where there is no such Service yet.
func (k *collector) judgeNamespaceLabel(namespace string, services []string) {
	use := member.UseOf(nil, k.namespaces[namespace])
	if k.meaning == nil || !k.enrolled(namespace) || use.Automatic() || use.None() {
		return
	}
	why := k.meaning.NamedProblem(types.NamespacedName{Namespace: namespace, Name: use.Gateway()})
	if why == "" || k.mesh == nil && !k.meshUnknown {
		return
	}
	whose := "connections to Services there will be"
	switch {
	case len(services) == 1:
		whose = "connections to Service " + services[0] + " are"
	case len(services) > 1:
		whose = "connections to its Services (" + enumerate(services) + ") are"
	}
	k.problem(serviceRefuses, "Namespace "+namespace, "namespace %s: %s; until then, %s refused", namespace, why, whose)
}
