// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

// draw writes the report for people.
func (r *namespaceReport) draw(t *table, _ time.Time) {
	r.drawLabels(t)
	r.drawPods(t)
	r.drawServices(t)
	if len(r.Waypoints) > 0 {
		drawWaypointRows(t, r.Waypoints)
	}
	drawEntries(t, "ROUTE", r.Routes)
	drawEntries(t, "POLICY OR EXTENSION", r.Policies)
	r.findings.draw(t)
	t.line("\nNot shown, for it takes other rights: %s.", and(r.NotShown))
	if r.Healthy {
		t.line("All is well, as far as it is shown.")
	}
}

func (r *namespaceReport) drawLabels(t *table) {
	switch {
	case r.Enrolled == nil:
		t.line("Namespace %s: unknown, see below", r.Namespace)
	case !*r.Enrolled:
		t.line("Namespace %s: not in the mesh", r.Namespace)
	default:
		const mesh = "as the Mesh says"
		t.line("Namespace %s: in the mesh, mTLS %s, outbound %s, waypoint %s", r.Namespace, cmp.Or(r.MTLS, mesh),
			cmp.Or(r.Outbound, mesh), cmp.Or(r.UseWaypoint, names.UseWaypointAuto))
	}
}

func (r *namespaceReport) drawPods(t *table) {
	if r.Pods == nil {
		t.line("\nPods: unknown, see below")
		return
	}
	rows := make([][]string, 0, len(r.Pods))
	for _, p := range r.Pods {
		rows = append(rows, []string{p.Name, yesNo(p.Captured), dash(oneLine(p.Reason))})
	}
	drawRows(t, []string{"POD", "CAPTURED", "WHY NOT"}, rows)
}

func (r *namespaceReport) drawServices(t *table) {
	if r.Services == nil {
		t.line("\nServices: unknown, see below")
		return
	}
	rows := make([][]string, 0, len(r.Services))
	for _, s := range r.Services {
		rows = append(rows, []string{s.Name, dash(s.Waypoint), s.Connections})
	}
	drawRows(t, []string{"SERVICE", "WAYPOINT", "CONNECTIONS"}, rows)
}

func drawEntries(t *table, title string, all []entryReport) {
	rows := make([][]string, 0, len(all))
	for _, e := range all {
		is := "ok"
		switch {
		case len(e.Problems) > 0:
			is = strings.Join(e.Problems, "; ")
		case e.OfOthers:
			is = "not of the mesh"
		}
		rows = append(rows, []string{e.Kind + " " + e.Name, is})
	}
	drawRows(t, []string{title, "STATE"}, rows)
}

// drawRows sets a table off from what comes before, if there is one.
func drawRows(t *table, header []string, rows [][]string) {
	if len(rows) > 0 {
		t.line("")
	}
	t.rows(header, rows)
}
