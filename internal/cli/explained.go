// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/explain"
)

// This file shows people what is explained.

func drawAnswer(t *table, a explain.Answer) {
	t.line("%s: %s", a.Verdict, sentence(a))
	t.line("caller   %s", a.Caller)
	if a.Identity != "" {
		t.line("identity %s", a.Identity)
	}
	t.line("")
	var rows [][]string
	at := "" // under which what follows stands
	for _, s := range a.Steps {
		where := s.At
		switch {
		case at != "" && s.At == at:
			where = "  " + cmp.Or(s.Stage, "policies")
		case at != "" && strings.HasPrefix(s.At, at+", "):
			where = "  " + strings.TrimPrefix(s.At, at+", ")
		case s.Stage != "":
			at = s.At
			rows = append(rows, []string{at, "", "in this order:"})
			where = "  " + s.Stage
		default:
			at = ""
		}
		rows = append(rows, []string{where, string(s.Verdict), s.Reason})
		for _, d := range s.DryRun {
			rows = append(rows, []string{"", "dry run", d})
		}
	}
	t.rows([]string{"WHERE", "VERDICT", "WHY"}, rows)
}

// sentence says what the verdict means.
func sentence(a explain.Answer) string {
	limited := func(s explain.Step) bool { return s.Verdict == explain.Allowed && len(s.MayAnswer) > 0 }
	switch a.Verdict {
	case explain.Allowed:
		if slices.ContainsFunc(a.Steps, limited) {
			return "the caller is let in, within the limits below."
		}
		return "the caller is let in."
	case explain.Denied:
		if a.Status != 0 {
			return fmt.Sprintf("the caller is refused, with %d.", a.Status)
		}
		return "the caller is refused."
	case explain.Answered:
		if a.Status != 0 {
			return fmt.Sprintf("the waypoint itself answers %d, and no application gets the request.", a.Status)
		}
		return "the waypoint itself answers, and no application gets the request."
	case explain.Depends:
	}
	switch n := len(a.DependsOn); n {
	case 0:
		return "some are let in and others are not."
	case 1:
		return a.DependsOn[0] + " decides."
	default:
		return strings.Join(a.DependsOn[:n-1], ", ") + " and " + a.DependsOn[n-1] + " decide."
	}
}
