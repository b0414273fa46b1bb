// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds/xdstest"
)

// notEnvoys are expressions that Go's package takes and Envoy does not.
var notEnvoys = []string{
	`\p{Letter}`, `\p{greek}`, `\p{Cn}`, `\p{LC}`, `\p{ASCII}`, `\p{Assigned}`, `[^\p{Letter}]`, `(?i)\P{old_italic}`,
	`\Q\\E\p{Letter}`, `a\\\p{^Letter}`, `\pl`,
	`\x{100}`, `[a-\x{10ffff}]`, `\400`, `[\777]`, `\Qa` + "\n" + `\E\x{0100}`,
}

// envoys are expressions on which parsers might differ, and that both take.
var envoys = []string{
	`\p{L}`, `\pN`, `\PN`, `\p{^Greek}`, `\p{Any}`, `[\p{Lu}\d[:word:]]`, `(?i)[[:^alpha:]]\p{Lu}`,
	`(?<name>a)(?P<other>b)`, `(?:)`, `()`, `a||b`, `(|a)`,
	`\Qa.b\E+`, `\Q\p{Letter}\E\pL`, `\\p{Letter}`, `\Qa.b`, `x{0}`, `x{1,1000}`, `(?s-i:.)`, `\A\z\b\B`, `^*$*`,
	`[^\x00-\x{FF}]`, `\x{00fF}\07\377\0400\a\_`, `[a-ü]`, `[ß-€]`, `a*?b+?c??`, `[a-]`, `[]a]`, `(?i)ſK`,
	// Programs about as large as the check lets through.
	`日{1000}`, `[~-􏿾]{1000}[~-􏿾]{1000}`, `(?i:\pL){5}`, strings.Repeat("[^\u0080-\U0010fffe]", 1000),
	`(?i)` + strings.Repeat("ſ", 3000),
	strings.Repeat("\U0001F600", 4900),
}

// TestRegexIsWhatEnvoyTakes: by name of every Unicode class that Go knows, by the known differences, and by many
// thousands of expressions put together at random, what passes our check passes a real Envoy's, all in one table.
func TestRegexIsWhatEnvoyTakes(t *testing.T) {
	for _, s := range notEnvoys {
		if _, err := regex(s); err == nil {
			t.Errorf("%q passes", s)
		}
	}
	for _, s := range envoys {
		if _, err := regex(s); err != nil {
			t.Errorf("%.100q does not pass: %v", s, err)
		}
	}
	candidates := slices.Clone(envoys)
	for _, table := range []map[string]*unicode.RangeTable{unicode.Categories, unicode.Scripts, unicode.Properties} {
		for name := range maps.Keys(table) {
			for _, form := range []string{`\p{%s}`, `\P{^%s}`, `[^\p{%s}a]`, `(?i)\p{%s}`} {
				candidates = append(candidates, fmt.Sprintf(form, name), strings.ToLower(fmt.Sprintf(form, name)))
			}
		}
	}
	g := &generator{rand.New(rand.NewPCG(1, 9))}
	for range 30_000 {
		candidates = append(candidates, g.expression())
	}
	var rules []model.Rule
	for _, s := range candidates {
		if _, err := regex(s); err == nil {
			rules = append(rules, model.Rule{Invalid: true, Match: model.Match{
				Path: &model.StringMatch{Type: model.MatchRegex, Value: s},
			}})
		}
	}
	if len(rules) < 5_000 || len(rules) > len(candidates)-1_000 {
		t.Fatalf("%d of %d expressions pass: that tests little", len(rules), len(candidates))
	}
	table := model.RouteTable{Attachment: model.Attachment{Port: web}, Default: pointers(rules)}
	rc, errs := Configuration(trustDomain, table)
	for _, err := range errs {
		if !strings.Contains(err.Error(), "value length must be") { // an empty expression
			t.Error(err)
		}
	}
	validate(t, xdstest.Binary(t), bundle{routes: []*routev3.RouteConfiguration{rc}})
}

var pieces = []string{
	"a", "ü", "K", "\U0001F600", ".", "^", "$", "|", "(", ")", "(?:", "(?i:", "(?s)", "(?-m)", "(?U)", "(?<n>", "(?P<m>",
	"(?=", "[", "]", "[^", "-", "&&", "[:alpha:]",
	"[[:word:]]", "*", "+", "?", "{", "}", "{2}", "{0,}", "{3,1000}", "{1,1001}", "{,2}", "*?", "++", `\`, `\d`, `\W`,
	`\b`, `\B`, `\A`, `\z`, `\Z`, `\C`, `\Q`, `\E`, `\G`,
	`\1`, `\012`, `\08`, `\x41`, `\x{110000}`, `\x{10ffff}`, `\x{fe}`, `\x{d800}`, `\400`, `\u0041`, `\pN`, `\p{`,
	`\p{Greek}`, `\p{^Lu}`, `\P{greek}`, `\p{L&}`, `\h`, `\R`, `\_`, `\-`, `\é`, "#", " ", "\n", "\x00",
}

// expression is one of pieces that make sense together more often than not.
func (g *generator) expression() string {
	var s strings.Builder
	for range 1 + g.IntN(6) {
		s.WriteString(pieces[g.IntN(len(pieces))])
	}
	return s.String()
}
