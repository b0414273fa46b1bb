// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"fmt"
	"strconv"
	"strings"

	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

const (
	// mostBytes of an expression, far below what Envoy's parser takes (100,000 characters).
	mostBytes = 32 << 10
	// mostRows of an expression, for the parser descends into each.
	mostRows = 32
	// mostInAll is what all expressions of a filter may have: more is no policy, and would be pushed to each proxy.
	mostInAll = 1 << 20
	// tooLong is the verdict of guards beyond that.
	tooLong = "what guards it is too long"
	// undecided is what an expression gives whose next one has more rows of the same phase.
	undecided = "?"
)

// row decides for what any of its conditions holds for: the verdict, empty to let in. Else it begins with a letter, so
// that with an address behind it it is none.
type row struct {
	any     []string
	verdict string
}

// phase is decided by the first row that holds; where none does, it lets in. Phase by phase: all must let in.
type phase []row

// verdict is filter state by phases. What they say may take several expressions, each of which goes on where the one
// before it has left off.
func verdict(key string, phases []phase) []*statev3.FilterStateValue {
	set := func(format string) *statev3.FilterStateValue {
		return envoy.FilterState(key, envoy.FactoryString, format, envoy.SharedNot)
	}
	var out []*statev3.FilterStateValue
	bytes, before := 0, ""
	for _, p := range phases {
		steps := split(p)
		for n, rows := range steps {
			otherwise := undecided
			if n == len(steps)-1 {
				otherwise = ""
			}
			expression := chain(rows, otherwise)
			if before != "" {
				expression = fmt.Sprintf("%[1]s != b%[2]s ? %[1]s : %[3]s", "filter_state["+quote(key)+"]", before, expression)
			}
			before = quote(otherwise)
			bytes += len(expression)
			out = append(out, set("%CEL("+expression+")%"))
		}
	}
	switch {
	case bytes > mostInAll:
		return []*statev3.FilterStateValue{set(tooLong)}
	case len(out) == 0:
		return []*statev3.FilterStateValue{set("%CEL('')%")}
	}
	return out
}

// split a phase into what an expression has room for. A row may go on in the next one.
func split(p phase) (steps []phase) {
	var step phase
	bytes := 0
	for _, r := range p {
		for n, condition := range r.any {
			if len(step) > 0 && (bytes+len(condition) > mostBytes || n == 0 && len(step) == mostRows) {
				steps, step, bytes = append(steps, step), nil, 0
			}
			bytes += len(condition)
			if last := len(step) - 1; n > 0 && last >= 0 {
				step[last].any = append(step[last].any, condition)
			} else {
				step = append(step, row{any: []string{condition}, verdict: r.verdict})
			}
		}
	}
	if len(step) > 0 {
		steps = append(steps, step)
	}
	return steps
}

func chain(p phase, otherwise string) string {
	b := &strings.Builder{}
	for _, r := range p {
		fmt.Fprintf(b, "%s ? %s : ", strings.Join(r.any, " || "), quote(r.verdict))
	}
	b.WriteString(quote(otherwise))
	return b.String()
}

// all is the condition that all of the conditions hold.
func all(conditions ...string) string {
	var out []string
	for _, c := range conditions {
		if c != "" {
			out = append(out, c)
		}
	}
	if len(out) == 0 {
		return "true"
	}
	return strings.Join(out, " && ")
}

// either is the condition that one of the conditions holds.
func either(conditions []string) string {
	if len(conditions) == 1 {
		return conditions[0]
	}
	return "(" + strings.Join(conditions, " || ") + ")"
}

// oneOf is the condition that a value is one of a list of literals.
func oneOf(value string, literals []string) string {
	if len(literals) == 1 {
		return value + " == " + literals[0]
	}
	return value + " in [" + strings.Join(literals, ", ") + "]"
}

// quote is a string as a literal.
func quote(s string) string { return envoy.CELText(s) }

func numbers(ports []uint16) []string {
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, strconv.Itoa(int(p)))
	}
	return out
}
