// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package printable makes texts of others harmless where people read them. A terminal takes some characters for orders
// (to clear the screen, to set the clipboard), others turn a line around, and a line break makes a line that nobody has
// said.
package printable

import (
	"fmt"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Line is a text in which everything that is no character to be seen, line breaks and tabs included, is written as Go
// writes it in a string. What was made so stays so.
func Line(s string) string { return escape(s, Hidden) }

// Lines is Line for a text that may have more than one.
func Lines(s string) string { return escape(s, func(r rune) bool { return r != '\n' && Hidden(r) }) }

// Text is Lines for a text that may have tabs, too, such as a log.
func Text(s string) string {
	return escape(s, func(r rune) bool { return r != '\n' && r != '\t' && Hidden(r) })
}

// Hidden tells whether a character can't be seen; a space can.
func Hidden(r rune) bool { return !unicode.IsPrint(r) }

func escape(s string, hidden func(rune) bool) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var b strings.Builder
	b.Grow(len(s) + 16)
	for len(s) > 0 {
		r, size := utf8.DecodeRuneInString(s)
		switch {
		case r == utf8.RuneError && size == 1:
			fmt.Fprintf(&b, `\x%02x`, s[0])
		case hidden(r):
			b.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		default:
			b.WriteString(s[:size])
		}
		s = s[size:]
	}
	return b.String()
}
