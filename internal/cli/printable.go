// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/fairway-mesh/fairway/internal/printable"
)

// What the commands print comes from statuses, logs and pods, which are not only the mesh's.

// Printable is what an error says, for a terminal. Its lines but the first are indented, so that none of them can be
// taken for one of another's.
func Printable(err error) string {
	lines := strings.Split(strings.TrimSpace(err.Error()), "\n")
	for i, line := range lines {
		lines[i] = printable.Line(strings.ReplaceAll(line, "\t", " "))
	}
	return strings.Join(lines, "\n  ")
}

// printableArgs are arguments of a format whose own text is to be trusted.
func printableArgs(args []any) []any {
	out := make([]any, len(args))
	for i, a := range args {
		switch a := a.(type) {
		case string:
			out[i] = printable.Line(a)
		case error:
			out[i] = printable.Line(a.Error())
		case fmt.Stringer:
			out[i] = printable.Line(a.String())
		default:
			out[i] = a
		}
	}
	return out
}

func printableCells(cells []string) []string {
	out := make([]string, len(cells))
	for i, c := range cells {
		out[i] = printable.Line(c)
	}
	return out
}

// sayLine writes a line of what a command does meanwhile.
func sayLine(to io.Writer, text string) error {
	_, err := fmt.Fprintln(to, printable.Line(text))
	return err
}

// jsonWriter writes JSON in which what is not to be seen is escaped as JSON has it. Such characters can be in strings
// alone.
type jsonWriter struct{ out io.Writer }

func (w jsonWriter) Write(data []byte) (int, error) {
	var b strings.Builder
	b.Grow(len(data))
	for _, r := range string(data) {
		switch {
		case r == '\n' || !printable.Hidden(r):
			b.WriteRune(r)
		case r > 0xffff:
			high, low := utf16.EncodeRune(r)
			fmt.Fprintf(&b, `\u%04x\u%04x`, high, low)
		default:
			fmt.Fprintf(&b, `\u%04x`, r)
		}
	}
	if _, err := io.WriteString(w.out, b.String()); err != nil {
		return 0, err
	}
	return len(data), nil
}
