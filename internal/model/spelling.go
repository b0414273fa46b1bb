// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"slices"
	"strings"
)

// mostHyphens of a name are taken for underscores one by one.
const mostHyphens = 3

// Underscored are the other spellings of a header's name that servers without hyphens (CGI, WSGI) take for the same:
// with any of its hyphens as underscores; of many, with all.
func Underscored(name string) []string {
	n := strings.Count(name, "-")
	if n == 0 {
		return nil
	}
	parts := strings.Split(strings.ToLower(name), "-")
	if n > mostHyphens {
		return []string{strings.Join(parts, "_")}
	}
	out := []string{parts[0]}
	for _, p := range parts[1:] {
		var longer []string
		for _, begin := range out {
			longer = append(longer, begin+"-"+p, begin+"_"+p)
		}
		out = longer
	}
	return slices.DeleteFunc(out, func(s string) bool { return !strings.Contains(s, "_") || s == strings.ToLower(name) })
}
