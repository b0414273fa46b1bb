// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"slices"
	"strconv"
	"time"
)

// draw writes the report for people.
func (r report) draw(t *table, now time.Time) {
	r.drawMesh(t)
	r.drawNodes(t)
	r.drawWaypoints(t)
	r.drawPolicies(t)
	r.drawProxies(t, now)
	r.drawPlaintext(t, now)
	r.findings.draw(t)
	if r.Healthy {
		t.line("\n%s", r.verdict())
	}
}

// verdict is the last line on a healthy mesh. What is wrong with a route or a policy is its owner's to mend, so the
// mesh is well all the same; but it must not sound as if the route were.
func (r report) verdict() string {
	broken := len(r.Elsewhere) + len(r.Policies)
	for _, w := range r.Waypoints {
		broken += len(w.Broken)
	}
	switch broken {
	case 0:
		return "All is well."
	case 1:
		return "The mesh is well; one route, policy or Service has a problem, see above."
	}
	return fmt.Sprintf("The mesh is well; %d routes, policies or Services have problems, see above.", broken)
}

func (r report) drawMesh(t *table) {
	switch {
	case r.Mesh.Unknown:
		t.line("Mesh: unknown, see below")
		return
	case !r.Mesh.Found:
		t.line("Mesh: none")
		return
	}
	replicas := strconv.Itoa(len(r.Mesh.Operators))
	switch ready := r.Mesh.OperatorsReady; {
	case ready == nil:
		replicas = unknownCell
	case *ready < len(r.Mesh.Operators):
		replicas = fmt.Sprintf("%d, %d of them ready", len(r.Mesh.Operators), *ready)
	}
	t.line("Mesh: trust domain %s, mTLS %s, outbound %s, operator replicas %s", r.Mesh.TrustDomain, dash(r.Mesh.MTLS),
		dash(r.Mesh.Outbound), replicas)
	var rows [][]string
	for _, c := range r.Mesh.Conditions {
		rows = append(rows, []string{"  " + c.Type, c.Status, dash(c.Reason), oneLine(c.Message)})
	}
	t.rows([]string{"  CONDITION", "STATUS", "REASON", "MESSAGE"}, rows)
}

// unknownCell stands for what could not be asked.
const unknownCell = "unknown"

// isUnread tells whether a kind could not be listed.
func (f *findings) isUnread(what string) bool { return slices.Contains(f.Unread, what) }

func (r report) drawNodes(t *table) {
	if r.isUnread(whatNodes) {
		t.line("\nNodes: unknown, see below")
		return
	}
	rows := make([][]string, 0, len(r.Nodes))
	for _, n := range r.Nodes {
		uncaptured := strconv.Itoa(len(n.Uncaptured))
		if n.Captured == nil {
			uncaptured = unknownCell
		}
		rows = append(rows, []string{n.Name, n.state(), dash(n.Proxy), number(n.Captured), uncaptured})
	}
	t.line("")
	t.rows([]string{"NODE", "PROXY", "POD", "CAPTURED", "NOT CAPTURED"}, rows)
	var strict, some, closed int
	for _, n := range r.Nodes {
		strict, some, closed = strict+n.Strict, some+n.SomePorts, closed+n.Closed
	}
	if strict+some > 0 {
		t.line("Of the captured pods, %d refuse plain text, and %d at some ports only.", strict, some)
	}
	if closed > 0 {
		t.line("Outbound of %d of the captured pods is closed: they send to addresses of the mesh only.", closed)
	}
}

// state of the node's proxy.
func (n nodeReport) state() string {
	switch {
	case n.Ready == nil || n.Wanted == nil && n.Proxy == "":
		return unknownCell
	case n.Proxy == "" && !n.wanted():
		return "excluded"
	case n.Proxy == "":
		return "missing"
	case !n.ready():
		return "not ready"
	}
	return "ready"
}

// number is a figure that may not be known.
func number[N int | int32](n *N) string {
	if n == nil {
		return unknownCell
	}
	return fmt.Sprint(*n)
}

func (r report) drawWaypoints(t *table) {
	defer r.drawElsewhere(t)
	switch {
	case r.WaypointsUnknown:
		t.line("\nWaypoints: unknown, see below")
		return
	case len(r.Waypoints) == 0:
		t.line("\nNo waypoints.")
		return
	}
	drawWaypointRows(t, r.Waypoints)
	for _, w := range r.Waypoints {
		for _, b := range w.Broken {
			t.line("  %s", b)
		}
	}
	if slices.ContainsFunc(r.Waypoints, func(w waypointReport) bool { return w.Routes != nil && *w.Routes > 0 }) {
		t.line("%s", noBoundary)
	}
}

func drawWaypointRows(t *table, all []waypointReport) {
	var rows [][]string
	for _, w := range all {
		kind := "explicit"
		if w.Automatic {
			kind = "automatic"
		}
		routes := number(w.Routes)
		if len(w.Broken) > 0 {
			routes += fmt.Sprintf(" (%d with problems)", len(w.Broken))
		}
		ready := unknownCell
		if w.Ready != nil {
			ready = fmt.Sprintf("%d/%d", *w.Ready, *w.Replicas)
		}
		rows = append(rows, []string{w.Namespace + "/" + w.Name, kind, yesNo(w.Programmed), ready, routes})
	}
	t.line("")
	t.rows([]string{"WAYPOINT", "KIND", "PROGRAMMED", "READY", "ROUTES"}, rows)
}

// noBoundary keeps a good state from promising what a mesh without policies can't hold.
const noBoundary = "A route is not a security boundary: callers can bypass a waypoint, for example by dialling the " +
	"pods' addresses."

func (r report) drawElsewhere(t *table) {
	if r.isUnread(whatHTTPRoutes) || r.isUnread(whatGRPCRoutes) {
		t.line("\nNot all routes could be asked for, see below.")
	}
	if len(r.Elsewhere) > 0 {
		title := "Not served by any waypoint:"
		if r.isUnread(whatNamespaces) || r.isUnread(whatServices) || r.isUnread(whatGateways) {
			title = "Routes and Services with problems:"
		}
		t.line("\n%s", title)
		for _, e := range r.Elsewhere {
			t.line("  %s", e)
		}
	}
	switch r.RoutesOfOthers {
	case 0:
	case 1:
		t.line("One more route of a namespace of the mesh has no parent in the mesh (but a Gateway of another class, say).")
	default:
		t.line("%d more routes of namespaces of the mesh have no parent in the mesh (but Gateways of another class, say).",
			r.RoutesOfOthers)
	}
}

func (r report) drawPolicies(t *table) {
	if slices.ContainsFunc(r.Unread, isPolicies) {
		t.line("\nNot all policies and extensions could be asked for, see below.")
	}
	if len(r.Policies) == 0 {
		return
	}
	t.line("\nPolicies and extensions with problems:")
	for _, p := range r.Policies {
		t.line("  %s", p)
	}
}

func (r report) drawProxies(t *table, now time.Time) {
	if r.Proxies == nil {
		t.line("\nProxies: unknown, see below")
		return
	}
	rows := make([][]string, 0, len(r.Proxies))
	for _, p := range r.Proxies {
		acked, pending, rejected := p.counts()
		connected := "-"
		if p.Connected != nil {
			connected = ago(*p.Connected, now)
		}
		rows = append(rows, []string{
			p.Pod, dash(p.Scope), p.State, connected,
			strconv.Itoa(acked), strconv.Itoa(pending), strconv.Itoa(rejected),
		})
	}
	if len(rows) == 0 {
		return
	}
	t.line("")
	t.rows([]string{"PROXY", "SCOPE", "STATE", "CONNECTED", "ACKED", "PENDING", "REJECTED"}, rows)
}

func yesNo(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}
