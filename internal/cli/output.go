// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/util/duration"
	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/internal/printable"
)

// outputFlag is -o: table (for people), json or yaml (for programs; the fields are stable within a minor version).
type outputFlag struct{ format string }

func (o *outputFlag) add(cmd *cobra.Command) {
	cmd.Flags().StringVarP(&o.format, "output", "o", "table", "table, json or yaml")
}

func (o *outputFlag) check() error {
	switch o.format {
	case "table", "json", "yaml":
		return nil
	}
	return usagef("-o %s: unknown format, use table, json or yaml", o.format)
}

// print writes v, or lets draw write a table for people.
func (o *outputFlag) print(out io.Writer, v any, draw func(*table)) error {
	switch o.format {
	case "json":
		enc := json.NewEncoder(jsonWriter{out})
		enc.SetIndent("", "  ")
		return enc.Encode(v)
	case "yaml":
		data, err := yaml.Marshal(v)
		if err != nil {
			return err
		}
		_, err = out.Write(data)
		return err
	case "table":
		t := &table{out: out}
		draw(t)
		return t.err
	}
	return o.check()
}

// table writes lines and aligned columns and remembers the first error. Formats and headers are the program's own; all
// else is made printable.
type table struct {
	out  io.Writer
	tabs *tabwriter.Writer
	err  error
	used bool
}

func (t *table) empty() bool { return !t.used }

// line writes one line of running text.
func (t *table) line(format string, args ...any) {
	t.write(t.out, fmt.Sprintf(format, printableArgs(args)...))
}

// text writes lines that this program has made, as a manifest.
func (t *table) text(s string) { t.write(t.out, s) }

// rows writes rows under a header, in columns.
func (t *table) rows(header []string, rows [][]string) {
	if len(rows) == 0 {
		return
	}
	t.tabs = tabwriter.NewWriter(t.out, 0, 0, 3, ' ', 0)
	t.write(t.tabs, strings.Join(header, "\t"))
	for _, r := range rows {
		t.write(t.tabs, strings.Join(printableCells(r), "\t"))
	}
	if err := t.tabs.Flush(); t.err == nil {
		t.err = err
	}
}

// fields writes what belongs to what was named before, a line for each, with what it is called.
func (t *table) fields(all [][]string) {
	t.tabs = tabwriter.NewWriter(t.out, 0, 0, 3, ' ', 0)
	for _, f := range all {
		t.write(t.tabs, "  "+strings.Join(printableCells(f), "\t"))
	}
	if err := t.tabs.Flush(); t.err == nil {
		t.err = err
	}
}

func (t *table) write(w io.Writer, s string) {
	t.used = true
	if t.err == nil {
		_, t.err = fmt.Fprintln(w, strings.TrimRight(s, " \t"))
	}
}

// ago is how long something lasts, as kubectl says it.
func ago(since, now time.Time) string {
	if since.IsZero() {
		return "-"
	}
	return duration.HumanDuration(now.Sub(since))
}

// dash stands for an empty cell, so that columns can be told apart by programs, too.
func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// oneLine keeps multi-line texts (Envoy's) inside their cell, and makes them printable.
func oneLine(s string) string { return printable.Line(strings.Join(strings.Fields(s), " ")) }
