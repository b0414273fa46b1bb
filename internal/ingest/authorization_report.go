// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"reflect"
	"slices"
	"strings"

	"k8s.io/apimachinery/pkg/labels"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// kindAuthorization is the kind of the policies that this file reports on.
var kindAuthorization = cluster.NameOf((*v1alpha1.AuthorizationPolicy)(nil))

// Enforcement says who carries a policy out that guards, an AuthorizationPolicy or an AuthenticationPolicy, for one
// ancestor, and what that changes. Where the ancestor isn't accepted, it is empty.
type Enforcement struct {
	// What the policy is: of level Application (else Network), with action DENY (else ALLOW), only tried.
	Application, Deny, DryRun bool
	// Means says what the policy changes, where that isn't said by the above.
	Means string
	// Pods whose nodes' proxies carry it out, or let in nobody but waypoints that do; nil: it is for none.
	Pods *GuardedPods
	// Modes is how far agents are with what it says of plain text; nil: it isn't about that.
	Modes *Modes
	// Waypoints that carry it out, sorted.
	Waypoints []GuardingWaypoint
	// Closed are ports of Services at which pods let nobody in, for requests can't be decided on; sorted.
	Closed []ClosedPort
	// Keys that the proxies of the waypoints verify tokens with, and fetch.
	Keys []FetchedKeys
}

// FetchedKeys are the keys of an issuer of tokens that proxies fetch.
type FetchedKeys struct {
	// Provider of the policy.
	Provider string
	// Server is the port that gives them.
	Server model.ServicePort
	// Source is how agents name them (names.KeySource).
	Source string
}

// GuardedPods are the pods that policies are for. Policies for the same pods share it.
type GuardedPods struct {
	// Name tells it from others, and stays while pods come and go: what the pods are chosen by.
	Name string
	// Captured pods are guarded by the proxies of their nodes, Uncaptured ones by nothing; sorted. Pods without an
	// address, and finished ones, are in neither: nobody can connect to them.
	Captured   []GuardedPod
	Uncaptured []cluster.Key
}

// GuardedPod is a pod, and the node whose proxy guards it.
type GuardedPod struct {
	Pod  cluster.Key
	Node string
}

// GuardingWaypoint is a waypoint whose proxies decide.
type GuardingWaypoint struct {
	Gateway cluster.Key
	// Tables are the ports whose route tables say what is refused, sorted.
	Tables []model.ServicePort
	// TCP: some port is passed on as it is, and decided on by connections.
	TCP bool
	// Authentication: it says who has proved who it is.
	Authentication bool
	// Pending: callers of some Service don't go there yet, for it has not served for the first time.
	Pending bool
}

// ClosedPort is a port at which no request can be decided on.
type ClosedPort struct {
	Port model.ServicePort
	// Open: the policy is only tried, and not even that at the port, which stays as it is.
	Open bool
	// Reason of the condition, and why it is so.
	Verdict
}

// accessReport is what the status of an AuthorizationPolicy is to say; nil where that is gone.
func (i *Ingest) accessReport(c *memo.Ctx, key cluster.Key) *Report {
	o, ok := i.store.Authorization.Get(c, key)
	p := i.accessPolicyOf.Get(c, key)
	if !ok || p == nil {
		return nil
	}
	out := &Report{
		Ref: model.ObjectRef{Kind: kindAuthorization, Namespace: key.Namespace, Name: key.Name}, UID: o.UID,
		Generation: o.Generation,
	}
	if !i.Settings.Get(c, struct{}{}).present {
		return out
	}
	for _, t := range i.accessTargetsOf.Get(c, key) {
		entry := i.accessEntry(c, p, t, o.Generation)
		same := func(e ParentReport) bool { return reflect.DeepEqual(e.Ref, entry.Ref) }
		if !slices.ContainsFunc(out.Parents, same) {
			out.Parents = append(out.Parents, entry)
		}
	}
	return out
}

func (i *Ingest) accessEntry(c *memo.Ctx, p *AccessPolicy, t AccessTarget, generation int64) ParentReport {
	e := &Enforcement{Application: p.level == v1alpha1.EnforcementLevelApplication, Deny: p.Deny, DryRun: p.DryRun}
	out := ParentReport{Ref: accessAncestor(t.Object), Enforcement: e}
	refused := t.refused
	if refused == nil {
		refused = p.invalid
	}
	accepted := "in force for " + t.pods.words(t.Object)
	if p.DryRun {
		accepted = "tried for " + t.pods.words(t.Object)
	}
	out.Conditions = append(out.Conditions, conditions.Judged(string(gwv1.PolicyConditionAccepted), refused,
		string(gwv1.PolicyReasonAccepted), accepted, generation))
	if refused != nil {
		text := "the policy is not accepted"
		switch {
		case t.refused != nil:
			text += " for this target"
		case p.DryRun:
		case p.Deny:
			text += ": until it is mended, it denies everything"
		default:
			text += ": until it is mended, it allows nothing"
		}
		out.Unprogrammed = &Verdict{Reason: refused.Reason, Message: text}
		return out
	}
	if t.pods != (podChoice{}) {
		e.Pods = i.guardedPods.Get(c, t.pods)
	}
	e.Closed = i.closedPorts(c, t, ", or use enforcementLevel Network")
	e.Waypoints = i.guardingWaypoints(c, t)
	return out
}

// accessAncestor is the target; of pods their namespace, for by selector they have no name.
func accessAncestor(o policy.Object) gwv1.ParentReference {
	namespace := gwv1.Namespace(o.Namespace)
	out := gwv1.ParentReference{
		Group: new(gwv1.Group(o.Group)), Kind: new(gwv1.Kind(o.Kind)), Namespace: &namespace, Name: gwv1.ObjectName(o.Name),
	}
	if o.Name == "" {
		out.Kind, out.Namespace, out.Name = new(gwv1.Kind(kindNamespace)), nil, gwv1.ObjectName(o.Namespace)
	}
	return out
}

// closedPorts are the ports of a target at which no request can be decided on; or is what there is to do besides about
// those that carry none.
func (i *Ingest) closedPorts(c *memo.Ctx, t AccessTarget, or string) (out []ClosedPort) {
	for _, p := range t.opaque {
		closed := ClosedPort{Port: p, Verdict: Verdict{
			Reason:  v1alpha1.PolicyReasonNotRequests,
			Message: "no requests can be told apart there: set appProtocol http if they can" + or,
		}}
		// Only policies that are tried leave it open what a port speaks.
		if declared, _ := i.declared(c, p); declared == model.ProtocolUndeclared {
			closed.Open = true
			closed.Message = "nobody has said what it speaks: set appProtocol http if that is so"
		}
		out = append(out, closed)
	}
	for _, p := range t.unserved {
		why := i.unserved(c, p.ServiceName(), "no waypoint serves the Service")
		if why == nil {
			why = &Verdict{Message: "no waypoint serves the port"}
		}
		out = append(out, ClosedPort{Port: p, Verdict: Verdict{
			Reason: v1alpha1.PolicyReasonNoWaypoint, Message: why.Message,
		}})
	}
	return out
}

// guardingWaypoints are those that carry a policy out, those that are still to be made included.
func (i *Ingest) guardingWaypoints(c *memo.Ctx, t AccessTarget) []GuardingWaypoint {
	out := slices.Clone(t.waypoints)
	for _, p := range t.requests {
		if slices.Contains(t.opaque, p) || slices.Contains(t.unserved, p) {
			continue
		}
		b := i.Binding.Get(c, p.ServiceName())
		at := slices.IndexFunc(out, func(w GuardingWaypoint) bool { return w.Gateway == b.Waypoint })
		if at < 0 {
			at, out = len(out), append(out, GuardingWaypoint{Gateway: b.Waypoint})
		}
		out[at].Pending = out[at].Pending || b.Pending
	}
	slices.SortFunc(out, func(a, b GuardingWaypoint) int { return byName(a.Gateway, b.Gateway) })
	return out
}

// podChoice is what pods of a namespace are chosen by: by labels, be it none, or by Services.
type podChoice struct {
	namespace string
	labelled  bool
	selector  string
	// services, by name, separated by commas.
	services string
}

// servicesChoice is of the Services of an object's namespace that ports are of. A Service's policy is for all of its
// pods, whether there is a port or not.
func servicesChoice(o policy.Object, ports []model.ServicePort) podChoice {
	var of []string
	if o.GroupKind == policy.Service {
		of = append(of, o.Name)
	}
	for _, p := range ports {
		if p.Namespace == o.Namespace {
			of = append(of, p.Service)
		}
	}
	if len(of) == 0 {
		return podChoice{}
	}
	slices.Sort(of)
	return podChoice{namespace: o.Namespace, services: strings.Join(slices.Compact(of), ",")}
}

// words say what a policy is for.
func (p podChoice) words(o policy.Object) string {
	switch {
	case o.Name != "":
		return o.String()
	case p.selector == "":
		return "all pods of namespace " + p.namespace
	}
	return fmt.Sprintf("pods of namespace %s with labels %s", p.namespace, p.selector)
}

// chosenPods are the pods that policies choose alike, who share them.
func (i *Ingest) chosenPods(c *memo.Ctx, by podChoice) *GuardedPods {
	if by.labelled {
		selector, err := labels.Parse(by.selector)
		if err != nil { // it was a selector's text
			selector = labels.Everything()
		}
		pods := i.podsWhere(c, by.namespace, func(set labels.Set) bool { return selector.Matches(set) })
		return i.guarded(c, fmt.Sprintf("pods of %s: %s", by.namespace, by.selector), pods)
	}
	var pods []cluster.Key
	for name := range strings.SplitSeq(by.services, ",") {
		pods = append(pods, i.podsOfService(c, cluster.Key{Namespace: by.namespace, Name: name})...)
	}
	slices.SortFunc(pods, byName)
	return i.guarded(c, fmt.Sprintf("pods of Services of %s: %s", by.namespace, by.services), slices.Compact(pods))
}

// guarded sorts pods by whether they are captured.
func (i *Ingest) guarded(c *memo.Ctx, name string, pods []cluster.Key) *GuardedPods {
	out := &GuardedPods{Name: name}
	for _, key := range pods {
		pod, ok := i.store.Pods.Get(c, key)
		switch {
		case !ok, member.Finished(pod), len(pod.Status.PodIPs) == 0:
		case i.takesMTLS(c, pod):
			out.Captured = append(out.Captured, GuardedPod{Pod: key, Node: pod.Spec.NodeName})
		default:
			out.Uncaptured = append(out.Uncaptured, key)
		}
	}
	slices.SortFunc(out.Captured, func(a, b GuardedPod) int { return byName(a.Pod, b.Pod) })
	slices.SortFunc(out.Uncaptured, byName)
	return out
}

func byName(a, b cluster.Key) int {
	return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
}

// sameReport compares the pods of policies by where they are: they are shared, and another list is a different one.
func sameReport(a, b *Report) bool {
	if a == nil || b == nil || len(a.Parents) != len(b.Parents) {
		return reflect.DeepEqual(a, b)
	}
	for n := range a.Parents {
		was, now := a.Parents[n].Enforcement, b.Parents[n].Enforcement
		if was != nil && now != nil && was.Pods != now.Pods {
			return false
		}
	}
	return reflect.DeepEqual(a, b)
}
