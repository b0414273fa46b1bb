// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"strconv"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// routeDescription is what `fairway describe route` shows and prints as JSON.
type routeDescription struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	beingDeleted
	// Cause is what is wrong, the cause before what follows from it; empty: nothing is known to be.
	Cause    []string        `json:"cause,omitempty"`
	Parents  []parentFact    `json:"parents"`
	Backends []backendFact   `json:"backends"`
	Waypoint []waypointFacts `json:"waypoints"`

	CouldNotAsk []string `json:"couldNotAsk,omitempty"`
}

type parentFact struct {
	Parent string `json:"parent"`
	// Conditions that the mesh has set, the cause first; none if it has said nothing.
	Conditions []condition `json:"conditions,omitempty"`
	// Says is why it has said nothing, or nothing of what the route is now.
	Says string `json:"says,omitempty"`
	// OfOthers: another controller has answered, and the mesh hasn't.
	OfOthers bool `json:"ofOthers,omitempty"`
	// Unknown says why it is not known whose it is.
	Unknown string `json:"unknown,omitempty"`
}

type backendFact struct {
	// Rule by its name, or its number.
	Rule    string `json:"rule"`
	Backend string `json:"backend"`
	Weight  int32  `json:"weight"`
	// State says how many endpoints it has.
	State string `json:"state"`
}

// waypointFacts are the waypoint of a parent, and its proxies.
type waypointFacts struct {
	waypointReport
	Proxies []proxyFact `json:"proxies"`
}

func (k *collector) describeRoute(ctx context.Context, s subject) (*routeDescription, error) {
	var found []meshRoute
	for _, r := range k.routes {
		if r.key() == s.name && (s.only == "" || s.only == r.kind) {
			found = append(found, r)
		}
	}
	switch {
	case len(found) == 0:
		kinds := []string{whatHTTPRoutes, whatGRPCRoutes}
		if s.only != "" {
			kinds = []string{plurals(s.only)}
		}
		return nil, k.notThere(cmp.Or(s.only, "route")+" "+s.name.String(), kinds...)
	case len(found) > 1:
		return nil, usagef("there are an HTTPRoute and a GRPCRoute %s: say httproute/%s or grpcroute/%s", s.name,
			s.name.Name, s.name.Name)
	}
	r := found[0]
	d := &routeDescription{
		Kind: r.kind, Name: r.key().String(), beingDeleted: deletionOf(r), CouldNotAsk: k.couldNotAsk(),
	}
	d.Cause, _ = k.routeComplaints(r)
	d.Parents = k.parentsOf(r)
	d.Backends = k.backendsOf(r)
	k.describeWaypoints(ctx, d, r)
	return d, nil
}

// conditionOrder puts causes before what follows from them.
var conditionOrder = []string{
	string(gwv1.RouteConditionAccepted), string(gwv1.RouteConditionResolvedRefs),
	string(gwv1.RouteConditionPartiallyInvalid), v1alpha1.EntryConditionStatusFull,
}

// bad tells whether a condition of a route says that something is wrong.
func bad(c metav1.Condition) bool { return complaint([]metav1.Condition{c}) != "" }

func (k *collector) parentsOf(r meshRoute) []parentFact {
	out := []parentFact{}
	for _, ref := range r.refs {
		p := parentFact{Parent: parentInWords(r.GetNamespace(), ref)}
		if s := statusOf(r, ref); s != nil {
			all := slices.Clone(s.Conditions)
			place := func(c metav1.Condition) int {
				n := slices.Index(conditionOrder, c.Type)
				if n < 0 {
					n = len(conditionOrder)
				}
				if !bad(c) {
					n += len(conditionOrder) + 1
				}
				return n
			}
			slices.SortStableFunc(all, func(a, b metav1.Condition) int { return cmp.Compare(place(a), place(b)) })
			p.Conditions = conditionsOf(all)
		}
		if !answered(r, ref) {
			p.Says = k.expected(r, ref)
			p.OfOthers = p.Says == "" && answeredByOthers(r, ref)
			if p.Says == "" && !p.OfOthers {
				p.Unknown = k.whoseParent(ref)
			}
		}
		out = append(out, p)
	}
	return out
}

// whoseParent says why it can't be told whether a parent is the mesh's; "" if it can.
func (k *collector) whoseParent(ref gwv1.ParentReference) string {
	needs := []string{whatNamespaces}
	switch _, kind := parentKind(ref); kind {
	case "Service":
		needs = append(needs, whatServices)
	case "Gateway":
		needs = append(needs, whatGateways)
	}
	for _, what := range needs {
		if k.unread[what] {
			return "whether it is the mesh's is unknown, for " + what + " could not be asked for"
		}
	}
	return ""
}

func parentInWords(namespace string, ref gwv1.ParentReference) string {
	_, kind := parentKind(ref)
	out := kind + " " + parentOf(namespace, ref).String()
	if ref.SectionName != nil {
		out += ", section " + string(*ref.SectionName)
	}
	if ref.Port != nil {
		out += ", port " + strconv.Itoa(int(*ref.Port))
	}
	return out
}

// accepted is the condition that says that a route isn't; nil if it is.
func accepted(s *gwv1.RouteParentStatus) *metav1.Condition {
	c := meta.FindStatusCondition(s.Conditions, string(gwv1.RouteConditionAccepted))
	if c != nil && c.Status == metav1.ConditionTrue {
		return nil
	}
	return c
}

// backendsOf are where a route's rules lead.
func (k *collector) backendsOf(r meshRoute) []backendFact {
	out := []backendFact{}
	add := func(rule string, ref gwv1.BackendRef) {
		f := backendFact{Rule: rule, Weight: 1}
		if ref.Weight != nil {
			f.Weight = *ref.Weight
		}
		f.Backend, f.State = k.backendInWords(r.GetNamespace(), ref.BackendObjectReference)
		out = append(out, f)
	}
	label := func(n int, name *gwv1.SectionName) string {
		if name != nil && *name != "" {
			return string(*name)
		}
		return strconv.Itoa(n)
	}
	switch route := r.Object.(type) {
	case *gwv1.HTTPRoute:
		for n, rule := range route.Spec.Rules {
			for _, b := range rule.BackendRefs {
				add(label(n, rule.Name), b.BackendRef)
			}
		}
	case *gwv1.GRPCRoute:
		for n, rule := range route.Spec.Rules {
			for _, b := range rule.BackendRefs {
				add(label(n, rule.Name), b.BackendRef)
			}
		}
	}
	return out
}

func (k *collector) backendInWords(namespace string, ref gwv1.BackendObjectReference) (name, state string) {
	kind := "Service"
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		namespace = string(*ref.Namespace)
	}
	name = fmt.Sprintf("%s %s/%s", kind, namespace, ref.Name)
	if ref.Port != nil {
		name += ":" + strconv.Itoa(int(*ref.Port))
	}
	switch {
	case kind != "Service":
		return name, "-"
	case k.meaning == nil || k.unread[whatEndpointSlices] || k.namespace != "" && namespace != k.namespace:
		return name, unknownCell
	case ref.Port == nil || *ref.Port < 1 || *ref.Port > math.MaxUint16:
		return name, "it names no port"
	}
	at := types.NamespacedName{Namespace: namespace, Name: string(ref.Name)}
	if _, there := k.meaning.Service(at); !there {
		return name, "does not exist"
	}
	ends, found := k.meaning.Endpoints(model.ServicePort{
		Namespace: namespace, Service: at.Name, Port: uint16(*ref.Port),
	})
	if !found {
		return name, "has no such TCP port"
	}
	return name, endpointsInWords(len(ends), inMesh(ends))
}

// describeWaypoints says of the waypoints of a route's parents what their proxies have acknowledged.
func (k *collector) describeWaypoints(ctx context.Context, d *routeDescription, r meshRoute) {
	d.Waypoint = []waypointFacts{}
	var wanted []types.NamespacedName
	for _, ref := range r.refs {
		_, kind := parentKind(ref)
		at := parentOf(r.GetNamespace(), ref)
		if kind == "Service" {
			if k.meaning == nil || k.namespace != "" && at.Namespace != k.namespace {
				d.CouldNotAsk = append(d.CouldNotAsk, "the waypoint of Service "+at.String()+": too little could be read to tell")
				continue
			}
			at = k.meaning.Binding(at).Waypoint
		}
		if at.Name != "" && !slices.Contains(wanted, at) {
			wanted = append(wanted, at)
		}
	}
	for _, key := range wanted {
		if w := k.waypointNamed(key); w != nil {
			d.Waypoint = append(d.Waypoint, waypointFacts{waypointReport: *w, Proxies: k.proxiesOfWaypoint(key)})
		}
	}
	if len(d.Waypoint) == 0 {
		return
	}
	own, failed := k.ownPods(ctx)
	streams, missing := k.streamsOf(ctx, own, failed)
	d.CouldNotAsk = append(d.CouldNotAsk, missing...)
	for i := range d.Waypoint {
		for n := range d.Waypoint[i].Proxies {
			d.Waypoint[i].Proxies[n].state(streams, len(missing) > 0)
		}
	}
}

// proxiesOfWaypoint are its pods that have not ended.
func (k *collector) proxiesOfWaypoint(key types.NamespacedName) []proxyFact {
	out := []proxyFact{}
	for i := range k.pods {
		p := &k.pods[i]
		if p.Namespace == key.Namespace && p.Labels[names.LabelGatewayName] == key.Name && k.isWaypoint(p) {
			out = append(out, proxyFact{Pod: p.Namespace + "/" + p.Name, Ready: podReady(p)})
		}
	}
	return out
}

func (d *routeDescription) draw(t *table, now time.Time) {
	t.line("%s %s", d.Kind, d.Name)
	if deleting := d.fields(now); deleting != nil {
		t.fields(deleting)
	}
	for _, c := range d.Cause {
		t.line("  - %s", c)
	}
	var rows [][]string
	for _, p := range d.Parents {
		name := p.Parent
		if p.Says != "" {
			rows = append(rows, []string{name, "-", "-", "-", oneLine(p.Says)})
			name = ""
		}
		if p.OfOthers {
			rows = append(rows, []string{name, "-", "-", "-", "another controller answers for it"})
			name = ""
		}
		for _, c := range p.Conditions {
			rows = append(rows, []string{name, c.Type, c.Status, dash(c.Reason), oneLine(c.Message)})
			name = ""
		}
		if len(p.Conditions) == 0 && p.Says == "" && !p.OfOthers {
			rows = append(rows, []string{name, "-", "-", "-", cmp.Or(p.Unknown, "it is none of the mesh's")})
		}
	}
	drawRows(t, []string{"PARENT", "CONDITION", "STATUS", "REASON", "MESSAGE"}, rows)
	rows = nil
	for _, b := range d.Backends {
		rows = append(rows, []string{b.Rule, b.Backend, strconv.Itoa(int(b.Weight)), b.State})
	}
	drawRows(t, []string{"RULE", "BACKEND", "WEIGHT", "ENDPOINTS"}, rows)
	for _, w := range d.Waypoint {
		t.line("\nWaypoint %s", w.inWords())
		rows = nil
		for _, p := range w.Proxies {
			acked, pending, rejected := proxyReport{Types: p.Types}.counts()
			state := cmp.Or(p.State, unknownCell)
			row := []string{p.Pod, yesNo(p.Ready), state, unknownCell, unknownCell, unknownCell}
			if p.State != "" && p.State != stateDisconnected {
				row = append(row[:3], strconv.Itoa(acked), strconv.Itoa(pending), strconv.Itoa(rejected))
			}
			rows = append(rows, row)
		}
		t.rows([]string{"PROXY", "READY", "STATE", "ACKED", "PENDING", "REJECTED"}, rows)
		for _, p := range w.Proxies {
			for _, ty := range p.Types {
				for _, x := range ty.Rejections {
					t.line("  %s rejects %s %s: %s", p.Pod, ty.Name, strings.TrimSpace(x.Resource), oneLine(x.Error))
				}
			}
		}
	}
	drawCouldNotAsk(t, d.CouldNotAsk)
}
