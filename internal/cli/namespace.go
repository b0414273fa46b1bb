// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"slices"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// namespaceReport is what `fairway status -n` shows and prints as JSON. Lists are null where they could not be asked
// for.
type namespaceReport struct {
	Healthy   bool   `json:"healthy"`
	Namespace string `json:"namespace"`
	// Enrolled is missing where the namespace could not be read, and so are the values of its labels.
	Enrolled    *bool  `json:"enrolled,omitempty"`
	MTLS        string `json:"mtlsMode,omitempty"`
	Outbound    string `json:"outbound,omitempty"`
	UseWaypoint string `json:"useWaypoint,omitempty"`

	Pods      []podReport      `json:"pods"`
	Services  []serviceReport  `json:"services"`
	Waypoints []waypointReport `json:"waypoints"`
	Routes    []entryReport    `json:"routes"`
	Policies  []entryReport    `json:"policies"`
	// NotShown is what takes rights beyond those of the namespace's users.
	NotShown []string `json:"notShown,omitempty"`
	findings
}

type podReport struct {
	Name     string `json:"name"`
	Captured bool   `json:"captured"`
	// Expected: it should be captured.
	Expected bool   `json:"expected"`
	Reason   string `json:"reason,omitempty"`
}

// States of a Service's connections.
const (
	connectionsDirect   = "direct"
	connectionsThrough  = "through its waypoint"
	connectionsPending  = "direct until its waypoint serves"
	connectionsRefused  = "refused"
	connectionsNoEffect = "direct, the label has no effect"
)

type serviceReport struct {
	Name        string `json:"name"`
	Waypoint    string `json:"waypoint,omitempty"`
	Connections string `json:"connections"`
}

// entryReport is a route or a policy.
type entryReport struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Problems are what its conditions complain of.
	Problems []string `json:"problems,omitempty"`
	// OfOthers: none of a route's parents is the mesh's.
	OfOthers bool `json:"ofOthers,omitempty"`
}

// collectNamespace asks what the users of a namespace may ask.
func collectNamespace(ctx context.Context, c *cluster, system, namespace string) namespaceReport {
	k := newCollector(c, system, namespace)
	k.readMesh(ctx)
	k.readObjects(ctx)
	r := namespaceReport{Namespace: namespace}
	if n := k.namespaces[namespace]; n != nil {
		r.Enrolled = new(member.Enrolled(n))
		r.MTLS, r.Outbound = n.Labels[names.LabelMTLSMode], n.Labels[names.LabelOutbound]
		r.UseWaypoint = n.Labels[names.LabelUseWaypoint]
	}
	k.judgeMesh()
	k.readWaypoints()
	k.judgeServices()
	if n := k.namespaces[namespace]; n != nil && !member.Enrolled(n) && namespace != system && !k.absent[whatMesh] {
		k.problem(notEnrolled, "Namespace "+namespace, "namespace %s is not in the mesh: label it %s=%s", namespace,
			names.LabelMesh, names.MeshEnabled)
	}
	k.fillNamespace(&r)
	k.sayNotShown(&r)
	k.sayFailed()
	k.sorted()
	r.findings, r.Healthy = k.findings, k.well()
	return r
}

func (k *collector) fillNamespace(r *namespaceReport) {
	if !k.unread[whatPods] {
		r.Pods = []podReport{}
		k.podsOf(r)
	}
	if !k.unread[whatServices] {
		r.Services = k.servicesOf()
	}
	r.Waypoints = k.report.Waypoints
	if !k.routesUnread() {
		r.Routes = []entryReport{}
	}
	for _, route := range k.routes {
		e := entryReport{Kind: route.kind, Name: route.GetName()}
		e.Problems, e.OfOthers = k.routeComplaints(route)
		r.Routes = append(r.Routes, e)
	}
	if !slices.ContainsFunc(k.Unread, isPolicies) {
		r.Policies = []entryReport{}
	}
	k.eachPolicy(func(kind string, p policy) {
		r.Policies = append(r.Policies, entryReport{Kind: kind, Name: p.GetName(), Problems: k.policyComplaints(p)})
	})
	for _, all := range [][]entryReport{r.Routes, r.Policies} {
		slices.SortFunc(all, func(a, b entryReport) int {
			return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name))
		})
		for _, e := range all {
			for _, what := range e.Problems {
				k.problem(entryBroken, e.Kind+" "+r.Namespace+"/"+e.Name, "%s %s: %s", e.Kind, e.Name, what)
			}
		}
	}
}

// routeComplaints are what is wrong with a route of the namespace; others tells that no parent is the mesh's.
func (k *collector) routeComplaints(r meshRoute) (out []string, others bool) {
	others = true
	for _, p := range r.status {
		if p.ControllerName != names.MeshController {
			continue
		}
		others = false
		if c := complaint(p.Conditions); c != "" {
			out = append(out, c)
		}
	}
	out = append(out, k.unanswered(r)...)
	slices.Sort(out)
	return slices.Compact(out), others && len(out) == 0
}

// podsOf says of each pod of the namespace that hasn't ended whether it is captured, and why not.
func (k *collector) podsOf(r *namespaceReport) {
	var missed groups
	for i := range k.pods {
		p := &k.pods[i]
		if member.Finished(p) || p.DeletionTimestamp != nil {
			continue
		}
		pod := k.podReport(p)
		if pod.Expected && !pod.Captured {
			missed.add(pod.Reason, p.Name)
		}
		r.Pods = append(r.Pods, pod)
	}
	for _, why := range missed.words {
		if all := missed.members[why]; len(all) == 1 {
			k.problem(podsUncaptured, "Pod "+r.Namespace+"/"+all[0], "pod %s is not captured: %s", all[0], why)
		} else {
			k.problem(podsUncaptured, "", "%s not captured (%s): %s", podsAre(len(all)), enumerate(all), why)
		}
	}
}

// podReport says whether a pod is captured, and why not.
func (k *collector) podReport(p *corev1.Pod) podReport {
	pod := podReport{Name: p.Name, Expected: shouldBeCaptured(p, k.namespaces[p.Namespace])}
	pod.Captured, pod.Reason = captureOf(p)
	// Of pods that are not to be captured agents report nothing, and what the Mesh says has no part in which are not.
	d := member.Decide(p, k.namespaces[p.Namespace], k.meshOrEmpty(), k.system)
	switch {
	case pod.Captured:
		pod.Reason = ""
	case d.Action == member.Release:
		pod.Reason = d.Reason + ": " + d.Message
	}
	return pod
}

// meshOrEmpty is a Mesh that says nothing where what it says could not be asked.
func (k *collector) meshOrEmpty() *v1alpha1.Mesh {
	if k.meshUnknown {
		return &v1alpha1.Mesh{}
	}
	return k.mesh
}

// servicesOf says of each Service of the namespace where its connections go.
func (k *collector) servicesOf() []serviceReport {
	out := []serviceReport{}
	for i := range k.services {
		out = append(out, k.serviceReport(&k.services[i]))
	}
	return out
}

// serviceReport says where the connections to a Service go.
func (k *collector) serviceReport(s *corev1.Service) serviceReport {
	b, refused := k.bindingOf(s)
	r := serviceReport{Name: s.Name, Waypoint: b.Waypoint.Name}
	switch {
	case refused != "" || r.Waypoint != "" && !b.Pending && k.empty(b.Waypoint):
		r.Connections = connectionsRefused
	case b.NoEffect != "":
		r.Connections = connectionsNoEffect
	case b.Pending:
		r.Connections = connectionsPending
	case r.Waypoint != "":
		r.Connections = connectionsThrough
	case k.meaning == nil && ofLabel(s, k.namespaces[s.Namespace]):
		r.Connections = unknownCell // the operator has said nothing yet
	default:
		r.Connections = connectionsDirect
	}
	return r
}

// empty tells whether it is known that no proxy of a waypoint is ready.
func (k *collector) empty(waypoint types.NamespacedName) bool {
	return slices.ContainsFunc(k.report.Waypoints, func(w waypointReport) bool {
		return w.Namespace == waypoint.Namespace && w.Name == waypoint.Name && w.Ready != nil && *w.Ready == 0
	})
}

// sayNotShown lists what the user has no right to, which is no failure but where nothing can be said without.
func (k *collector) sayNotShown(r *namespaceReport) {
	r.NotShown = slices.Concat([]string{"nodes", "proxies", "the operator"}, k.forbidden)
	for _, what := range []string{whatPods, whatServices} {
		if slices.Contains(k.forbidden, what) {
			k.unknown("you have no right to list %s in namespace %s: it takes the role view", what, k.namespace)
		}
	}
}
