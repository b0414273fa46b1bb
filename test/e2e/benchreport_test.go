// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// benchReport is what TestBench found, and how it looks in docs/benchmarks.md.
type benchReport struct {
	Date, Kubernetes string
	Cores, Samples   int
	// Churn is how many endpoints change in a second in columns that say so.
	Churn int
	// Load is the highest load average of a minute that was met: above what the benchmark makes itself, others were busy.
	Load     float64
	Columns  []benchColumn
	Policies []policyColumn
}

// benchColumn is what was measured at one number of routes.
type benchColumn struct {
	Routes int
	// OnOne: all routes are for one Service. Churn: endpoints change meanwhile.
	OnOne, Churn                          bool
	Fill                                  benchFill
	NewRoute, EditedRoute, Direct, Routed benchTimes
	EditCost                              benchCost
	// Requests were sent while routes were edited; Failed of them failed.
	Requests, Failed int
	// Memory of the larger replica of the operator, in bytes.
	Memory float64
}

// benchFill is the creation of many routes at once.
type benchFill struct {
	Routes int
	// Written is until the API server has taken the last one, Programmed until the last one was.
	Written, Programmed time.Duration
	// CPU of all replicas of the operator, in seconds.
	CPU float64
}

// benchCost is the operator's, for one edit: seconds of CPU, bytes of xDS.
type benchCost struct{ CPU, Bytes float64 }

// benchTimes are samples of one figure.
type benchTimes []time.Duration

// String is the median and the worst, in milliseconds.
func (b benchTimes) String() string {
	if len(b) == 0 {
		return ""
	}
	sorted := slices.Sorted(slices.Values(b))
	return fmt.Sprintf("%d / %d ms", sorted[len(sorted)/2].Milliseconds(), sorted[len(sorted)-1].Milliseconds())
}

// drawn is a column as hack/benchplot draws it: for each row the median and the worst.
type drawn struct {
	Routes       int
	OnOne, Churn bool
	Rows         map[string][2]float64
}

// drawn are the columns' figures that are worth a picture.
func (r benchReport) drawn() (out []drawn) {
	for _, c := range r.Columns {
		cost, memory := c.EditCost.CPU*1000, c.Memory/1e6
		out = append(out, drawn{c.Routes, c.OnOne, c.Churn, map[string][2]float64{
			"a new route answers, ms":                        c.NewRoute.drawn(),
			"an edited route answers, ms":                    c.EditedRoute.drawn(),
			"a moved endpoint answers, ms":                   c.Direct.drawn(),
			"a moved endpoint behind a waypoint answers, ms": c.Routed.drawn(),
			"operator CPU for an edit, ms":                   {cost, cost},
			"operator memory, MB":                            {memory, memory},
		}})
	}
	return out
}

func (b benchTimes) drawn() [2]float64 {
	if len(b) == 0 {
		return [2]float64{}
	}
	sorted := slices.Sorted(slices.Values(b))
	ms := func(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
	return [2]float64{ms(sorted[len(sorted)/2]), ms(sorted[len(sorted)-1])}
}

func (f benchFill) String() string {
	if f.Routes == 0 {
		return ""
	}
	return fmt.Sprintf("%d: %.1f s (written %.1f s); %.1f s", f.Routes, f.Programmed.Seconds(), f.Written.Seconds(), f.CPU)
}

func (r benchReport) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "# Benchmarks\n\n"+
		"Written by `make bench` on %s: the dev cluster (two nodes, Kubernetes %s, stock Envoy, two operators) on %d "+
		"cores, which it\n"+
		"shares with what measures, at a load average of up to %.0f. Times are the median and the worst of %d, from just "+
		"before the write to the\n"+
		"API server until a client pod that asks every 2 ms, each time by a connection of its own, gets the new answer. "+
		"Routes are spread over\n"+
		"Services by tens. What an edit costs is beyond what the operators use when nothing is changed, which is "+
		"measured in turn, each time\n"+
		"once they are at rest.\n\n"+
		"![the figures below: lines are medians, crosses the worst](benchmarks.svg)\n\n",
		r.Date, r.Kubernetes, r.Cores, r.Load, r.Samples)
	for _, part := range []struct {
		head          string
		onOne, churns bool
	}{
		{"", false, false},
		{"All routes are for one Service.", true, false},
		{fmt.Sprintf("Meanwhile the endpoint of another Service changes %d times in a second.", r.Churn), false, true},
		{fmt.Sprintf("All routes are for one Service, and an endpoint changes %d times in a second.", r.Churn), true, true},
	} {
		r.part(&b, part.head, func(c benchColumn) bool { return c.OnOne == part.onOne && c.Churn == part.churns })
	}
	fmt.Fprintf(&b, "\nAn AuthorizationPolicy of level `Network` for %d running pods, among policies of another namespace "+
		"that have twenty\naccounts each. Ten of them are for each of that namespace's pods, which no node runs.\n\n",
		benchConcerned)
	table(&b, r.Policies, []tableRow[policyColumn]{
		{"policies for other pods", func(c policyColumn) string { return fmt.Sprint(c.Policies) }},
		{"other pods", func(c policyColumn) string { return fmt.Sprint(c.Pods) }},
		{"an edited policy lets a caller in", func(c policyColumn) string { return c.Edited.String() }},
		{"operator CPU for an edit", func(c policyColumn) string { return c.Cost.cpu() }},
		{"operator CPU for an annotation, which says nothing", func(c policyColumn) string { return c.Noted.cpu() }},
		{"xDS bytes for an edit", func(c policyColumn) string { return c.Cost.sent() }},
		{"operator memory, larger replica", func(c policyColumn) string { return megabytes(c.Memory) }},
	})
	return b.String()
}

// part is the table of those columns that it is for.
func (r benchReport) part(b *strings.Builder, head string, of func(benchColumn) bool) {
	var columns []benchColumn
	for _, c := range r.Columns {
		if of(c) {
			columns = append(columns, c)
		}
	}
	if len(columns) == 0 {
		return
	}
	if head != "" {
		b.WriteString("\n" + head + "\n\n")
	}
	table(b, columns, []tableRow[benchColumn]{
		{"routes in the namespace", func(c benchColumn) string { return fmt.Sprint(c.Routes) }},
		{"a new route answers", func(c benchColumn) string { return c.NewRoute.String() }},
		{"an edited route answers", func(c benchColumn) string { return c.EditedRoute.String() }},
		{"a moved endpoint answers", func(c benchColumn) string { return c.Direct.String() }},
		{"a moved endpoint behind a waypoint answers", func(c benchColumn) string { return c.Routed.String() }},
		{"operator CPU for an edit", func(c benchColumn) string { return c.EditCost.cpu() }},
		{"xDS bytes for an edit", func(c benchColumn) string { return c.EditCost.sent() }},
		{
			"requests that failed during edits",
			func(c benchColumn) string { return fmt.Sprintf("%d of %d", c.Failed, c.Requests) },
		},
		{"many routes at once: all Programmed; operator CPU", func(c benchColumn) string { return c.Fill.String() }},
		{"operator memory, larger replica", func(c benchColumn) string { return megabytes(c.Memory) }},
	})
}

// tableRow is a name and what stands behind it in each column.
type tableRow[C any] struct {
	name string
	cell func(C) string
}

// table writes rows, the first as the head.
func table[C any](b *strings.Builder, columns []C, rows []tableRow[C]) {
	for n, row := range rows {
		fmt.Fprintf(b, "| %s |", row.name)
		for _, c := range columns {
			fmt.Fprintf(b, " %s |", row.cell(c))
		}
		b.WriteString("\n")
		if n == 0 {
			b.WriteString("|" + strings.Repeat(" --- |", 1+len(columns)) + "\n")
		}
	}
}

func (c benchCost) cpu() string { return fmt.Sprintf("%.1f ms", c.CPU*1000) }

func (c benchCost) sent() string { return fmt.Sprintf("%.1f KB", c.Bytes/1000) }

func megabytes(bytes float64) string { return fmt.Sprintf("%.0f MB", bytes/1e6) }

func TestBenchReport(t *testing.T) {
	ms := time.Millisecond
	report := benchReport{Date: "2030-01-02", Kubernetes: "v1", Cores: 2, Samples: 3, Columns: []benchColumn{
		{NewRoute: benchTimes{9 * ms, 3 * ms, 5 * ms}, Requests: 10},
		{
			Routes: 1000, Fill: benchFill{Routes: 1000, Written: 2 * time.Second, Programmed: 2500 * ms, CPU: 1.25},
			EditCost: benchCost{CPU: 0.0042, Bytes: 1500}, Memory: 5e7,
		},
		{Routes: 3000, OnOne: true, NewRoute: benchTimes{7 * ms}},
		{Routes: 5000, OnOne: true, Churn: true, NewRoute: benchTimes{8 * ms}},
	}, Churn: 40, Policies: []policyColumn{
		{Policies: 1000, Pods: 5000, Edited: benchTimes{4 * ms}, Cost: benchCost{CPU: 0.0015}},
	}}
	for _, has := range []string{
		"| routes in the namespace | 0 | 1000 |\n| --- | --- | --- |\n| a new route answers | 5 / 9 ms |  |\n",
		"| operator CPU for an edit | 0.0 ms | 4.2 ms |\n| xDS bytes for an edit | 0.0 KB | 1.5 KB |\n" +
			"| requests that failed during edits | 0 of 10 | 0 of 0 |\n",
		"|  | 1000: 2.5 s (written 2.0 s); 1.2 s |\n",
		"\nAll routes are for one Service.\n\n| routes in the namespace | 3000 |\n| --- | --- |\n" +
			"| a new route answers | 7 / 7 ms |\n",
		"an endpoint changes 40 times in a second.\n\n| routes in the namespace | 5000 |\n| --- | --- |\n",
		"| policies for other pods | 1000 |\n| --- | --- |\n| other pods | 5000 |\n" +
			"| an edited policy lets a caller in | 4 / 4 ms |\n| operator CPU for an edit | 1.5 ms |\n",
	} {
		require.Contains(t, report.String(), has)
	}
}
