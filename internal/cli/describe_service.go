// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/explain"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/model"
)

// serviceDescription is what `fairway describe service` shows and prints as JSON. Lists are null where they could not
// be asked for.
type serviceDescription struct {
	Service string `json:"service"`
	beingDeleted
	// Enrolled tells whether its namespace is in the mesh; missing where that could not be asked for.
	Enrolled *bool `json:"enrolled,omitempty"`
	// Connections are how clients of the mesh reach it, and Why is more of that.
	Connections string `json:"connections"`
	Why         string `json:"why,omitempty"`
	// Waypoint that they go through, or are to.
	Waypoint  *waypointReport `json:"waypoint,omitempty"`
	Ports     []portFact      `json:"ports"`
	Routes    []routeFact     `json:"routes"`
	Policies  []policyFact    `json:"policies"`
	Endpoints []endpointFact  `json:"endpoints"`
	// Notes are what else one should know.
	Notes       []string `json:"notes,omitempty"`
	CouldNotAsk []string `json:"couldNotAsk,omitempty"`
}

type portFact struct {
	Port     uint16 `json:"port"`
	Name     string `json:"name,omitempty"`
	Protocol string `json:"protocol"`
	// Served is as what the waypoint takes it; empty without one.
	Served        string `json:"served,omitempty"`
	TrafficPolicy string `json:"trafficPolicy,omitempty"`
	// Endpoints, and those of them in the mesh; missing where they could not be asked for.
	Endpoints *int `json:"endpoints,omitempty"`
	InMesh    *int `json:"inMesh,omitempty"`
}

// routeFact is a route that names the Service as a parent.
type routeFact struct {
	Kind string `json:"kind"`
	Name string `json:"name"`
	// Attached: it has rules for requests to the Service.
	Attached bool `json:"attached"`
	// Problem says why not, or what else its conditions complain of.
	Problem string `json:"problem,omitempty"`
}

type endpointFact struct {
	Address string `json:"address"`
	Pod     string `json:"pod,omitempty"`
	InMesh  bool   `json:"inMesh"`
	Node    string `json:"node,omitempty"`
	State   string `json:"state"`
}

func (k *collector) describeService(key types.NamespacedName) (*serviceDescription, error) {
	at := slices.IndexFunc(k.services, func(s corev1.Service) bool { return client.ObjectKeyFromObject(&s) == key })
	if at < 0 {
		return nil, k.notThere("Service "+key.String(), whatServices)
	}
	s := &k.services[at]
	d := &serviceDescription{Service: key.String(), beingDeleted: deletionOf(s), CouldNotAsk: k.couldNotAsk()}
	if n := k.namespaces[key.Namespace]; n != nil {
		d.Enrolled = new(member.Enrolled(n))
	}
	b, refused := k.bindingOf(s)
	d.Connections = k.serviceReport(s).Connections
	d.Why = oneLine(cmp.Or(refused, b.NoEffect))
	if b.Waypoint.Name != "" {
		d.Waypoint = k.waypointNamed(b.Waypoint)
	}
	if !k.routesUnread() {
		d.Routes = k.routesAt(key)
	}
	if k.meaning == nil {
		d.CouldNotAsk = append(d.CouldNotAsk, "its ports, endpoints and policies: too little could be read to tell")
		return d, nil
	}
	f, found := k.meaning.Service(key)
	if !found {
		return d, nil
	}
	k.describePorts(d, f)
	if p := k.policyProblemsAt(key); len(p) > 0 {
		d.Notes = append(d.Notes, p...)
	}
	d.Notes = append(d.Notes, f.LeftOut...)
	if f.Headless {
		d.Notes = append(d.Notes, "it is headless: clients dial its pods, and no waypoint can serve it")
	}
	if f.External {
		d.Notes = append(d.Notes, "it is a name for a host outside (ExternalName), which nothing of the mesh serves")
	}
	return d, nil
}

// waypointNamed is nil for one that there isn't.
func (k *collector) waypointNamed(key types.NamespacedName) *waypointReport {
	for i := range k.report.Waypoints {
		if w := &k.report.Waypoints[i]; w.Namespace == key.Namespace && w.Name == key.Name {
			return w
		}
	}
	return nil
}

func (k *collector) describePorts(d *serviceDescription, f explain.Service) {
	d.Ports = []portFact{}
	known := !k.unread[whatEndpointSlices]
	if known {
		d.Endpoints = []endpointFact{}
	}
	var guards []model.Guard
	for _, p := range f.Ports {
		fact := portFact{
			Port: p.Number, Name: p.Name, Protocol: string(p.Protocol), Served: string(p.Served), TrafficPolicy: p.Traffic,
		}
		if known {
			fact.Endpoints, fact.InMesh = new(len(p.Endpoints)), new(inMesh(p.Endpoints))
		}
		guards = append(guards, p.Guards...)
		for _, e := range p.Endpoints {
			if p.Served == "" && e.Pod.Name != "" { // nothing decides before the pod does
				if pod, ok := k.meaning.Pod(e.Pod); ok && pod.Guard != nil {
					guards = append(guards, pod.Guard.Guard)
				}
			}
			d.Endpoints = append(d.Endpoints, endpointOf(e))
		}
		d.Ports = append(d.Ports, fact)
	}
	if !k.policiesUnread() && (known || d.Waypoint != nil) {
		d.Policies = policiesOf(guards...)
	}
}

func inMesh(all []explain.Endpoint) (n int) {
	for _, e := range all {
		if e.MTLS {
			n++
		}
	}
	return n
}

// endpointsInWords are how many there are, and how many of them are in the mesh.
func endpointsInWords(all, in int) string {
	switch {
	case all == 0:
		return "none"
	case in == 0:
		return fmt.Sprintf("%d, none in the mesh", all)
	case in == all && all == 1:
		return "1, in the mesh"
	case in == all:
		return fmt.Sprintf("%d, all in the mesh", all)
	}
	return fmt.Sprintf("%d, %d in the mesh", all, in)
}

func endpointOf(e explain.Endpoint) endpointFact {
	f := endpointFact{Address: e.Address.String(), InMesh: e.MTLS, Node: e.Node, State: "ready"}
	if e.Pod.Name != "" {
		f.Pod = e.Pod.String()
	}
	switch {
	case e.Draining:
		f.State = "draining"
	case e.Absent:
		f.State = "absent"
	}
	return f
}

// routesAt are the routes that name a Service as parent.
func (k *collector) routesAt(service types.NamespacedName) []routeFact {
	out := []routeFact{}
	for _, r := range k.routes {
		names := func(p gwv1.ParentReference) bool {
			_, kind := parentKind(p)
			return kind == "Service" && parentOf(r.GetNamespace(), p) == service
		}
		at := slices.IndexFunc(r.refs, names)
		if at < 0 {
			continue
		}
		f := routeFact{Kind: r.kind, Name: r.key().String(), Attached: true}
		problems, _ := k.routeComplaints(r)
		f.Problem = strings.Join(problems, "; ")
		if k.meaning != nil {
			refused := true
			for _, p := range k.meaning.Parents(r.kind, r.key()) {
				if !names(p.Ref) {
					continue
				}
				if p.Refused == nil {
					refused = false
				} else {
					f.Problem = cmp.Or(f.Problem, oneLine(p.Refused.Reason+": "+p.Refused.Message))
				}
			}
			f.Attached = !refused
		} else if s := statusOf(r, r.refs[at]); s == nil || accepted(s) != nil {
			f.Attached = false
		}
		out = append(out, f)
	}
	return out
}

// policyProblemsAt are the policies with a problem that target a Service, which therefore may not be in force.
func (k *collector) policyProblemsAt(service types.NamespacedName) (out []string) {
	if service.Namespace == "" {
		return nil
	}
	k.eachPolicy(func(kind string, p policy) {
		if p.GetNamespace() != service.Namespace {
			return
		}
		for _, a := range *p.Ancestors() {
			_, of := parentKind(a.AncestorRef)
			if of != "Service" || parentOf(p.GetNamespace(), a.AncestorRef) != service {
				continue
			}
			if c := k.policyComplaints(p); len(c) > 0 {
				out = append(out, fmt.Sprintf("%s %s: %s", kind, client.ObjectKeyFromObject(p), strings.Join(c, "; ")))
				return
			}
		}
	})
	return out
}

func (d *serviceDescription) draw(t *table, now time.Time) {
	t.line("Service %s", d.Service)
	in := unknownCell
	if d.Enrolled != nil {
		in = yesNo(*d.Enrolled)
	}
	fields := [][]string{{"In the mesh", in}, {"Connections", d.Connections}}
	if d.Why != "" {
		fields[1][1] += ": " + d.Why
	}
	if w := d.Waypoint; w != nil {
		fields = append(fields, []string{"Waypoint", w.inWords()})
	}
	t.fields(append(d.fields(now), fields...))
	var rows [][]string
	for _, p := range d.Ports {
		rows = append(rows, []string{
			strconv.Itoa(int(p.Port)), dash(p.Name), p.Protocol, dash(p.Served), dash(p.TrafficPolicy),
			p.endpoints(),
		})
	}
	drawRows(t, []string{"PORT", "NAME", "DECLARED", "AT THE WAYPOINT", "TRAFFIC POLICY", "ENDPOINTS"}, rows)
	d.drawRoutes(t)
	if unknown := d.unknown(); len(unknown) > 0 {
		t.line("\nUnknown, see below: %s", and(unknown))
	}
	drawPolicies(t, d.Policies)
	rows = nil
	for _, e := range d.Endpoints {
		rows = append(rows, []string{e.Address, dash(e.Pod), yesNo(e.InMesh), e.State, dash(e.Node)})
	}
	drawRows(t, []string{"ENDPOINT", "POD", "IN THE MESH", "STATE", "NODE"}, rows)
	if len(d.Notes) > 0 {
		t.line("\nNotes:")
	}
	for _, n := range d.Notes {
		t.line("  - %s", oneLine(n))
	}
	drawCouldNotAsk(t, d.CouldNotAsk)
}

func (p portFact) endpoints() string {
	if p.Endpoints == nil {
		return unknownCell
	}
	return endpointsInWords(*p.Endpoints, *p.InMesh)
}

func (d *serviceDescription) drawRoutes(t *table) {
	if d.Routes == nil {
		t.line("\nRoutes: unknown, see below")
		return
	}
	var rows [][]string
	for _, r := range d.Routes {
		rows = append(rows, []string{r.Kind + " " + r.Name, yesNo(r.Attached), dash(r.Problem)})
	}
	drawRows(t, []string{"ROUTE", "ATTACHED", "PROBLEM"}, rows)
}

// unknown is what could not be asked for.
func (d *serviceDescription) unknown() (out []string) {
	if d.Ports == nil {
		out = append(out, "ports")
	}
	if d.Policies == nil {
		out = append(out, "policies")
	}
	if d.Endpoints == nil {
		out = append(out, "endpoints")
	}
	return out
}

// inWords says of a waypoint what there is of it.
func (w waypointReport) inWords() string {
	kind := "explicit"
	if w.Automatic {
		kind = "automatic"
	}
	ready := "how many proxies are ready is unknown"
	if w.Ready != nil {
		ready = fmt.Sprintf("%d of %d proxies ready", *w.Ready, *w.Replicas)
	}
	programmed := "programmed"
	if !w.Programmed {
		programmed = "not programmed"
	}
	return fmt.Sprintf("%s/%s, %s, %s, %s", w.Namespace, w.Name, kind, programmed, ready)
}
