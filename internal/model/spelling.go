// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"regexp"
	"strings"
)

// Servers without hyphens (CGI, WSGI) take any hyphen of a header's name for an underscore, so a name has as many
// spellings as there are ways to write each of its separators. Case means nothing to anyone.

// MostSeparators are the hyphens and underscores that a header's name may have where all its spellings are matched one
// by one, 2^5 at most: Envoy matches headers by whole names only.
const MostSeparators = 5

// HeaderSpelled is a header's name as all see it: those of the same header have the same.
func HeaderSpelled(name string) string { return strings.ReplaceAll(strings.ToLower(name), "_", "-") }

// ManySpellings tells whether a header has too many spellings to match them one by one.
func ManySpellings(name string) bool { return strings.Count(HeaderSpelled(name), "-") > MostSeparators }

// OtherSpellings are the spellings that servers take for a header's name, without that itself, in small letters. Of
// those of ManySpellings, which no policy may have, they are the two that are most likely.
func OtherSpellings(name string) (out []string) {
	parts := strings.Split(HeaderSpelled(name), "-")
	all := []string{strings.Join(parts, "-"), strings.Join(parts, "_")}
	if !ManySpellings(name) {
		all = all[:0]
		for n := range 1 << (len(parts) - 1) {
			all = append(all, joined(parts, n))
		}
	}
	for _, s := range all {
		if s != strings.ToLower(name) {
			out = append(out, s)
		}
	}
	return out
}

// joined has an underscore where a bit is set, from the last separator on.
func joined(parts []string, bits int) string {
	var b strings.Builder
	b.WriteString(parts[0])
	for n, p := range parts[1:] {
		b.WriteByte("-_"[bits>>(len(parts)-2-n)&1])
		b.WriteString(p)
	}
	return b.String()
}

// SpellingsPattern is a regular expression for all spellings of a header's name, however many.
func SpellingsPattern(name string) string {
	return strings.ReplaceAll(regexp.QuoteMeta(HeaderSpelled(name)), "-", "[-_]")
}
