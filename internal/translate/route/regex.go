// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"math"
	"regexp/syntax"
	"strconv"
	"strings"
	"unicode"

	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// regex is an RE2 expression for the whole string. Go's parser is RE2's but for what checkEscapes looks at; an
// expression that Envoy refused would cost everybody else's routes of the table.
func regex(s string) (*matcherv3.RegexMatcher, error) {
	parsed, err := syntax.Parse(s, syntax.Perl)
	if err != nil {
		return nil, notRE2(s, err)
	}
	if err := checkEscapes(s); err != nil {
		return nil, notRE2(s, err)
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, notRE2(s, err)
	}
	if n := programSize(program); n > maxProgramSize {
		return nil, fmt.Errorf("the regular expression needs about %d instructions, but the limit is %d: simplify it", n,
			maxProgramSize)
	}
	return &matcherv3.RegexMatcher{Regex: s}, nil
}

func notRE2(s string, err error) error {
	return fmt.Errorf("%q is not a regular expression in RE2 syntax: %w", s, err)
}

// checkEscapes looks at the two things that Go's parser takes and Envoy does not: more names of Unicode classes, and
// characters beyond \xff, for Envoy has RE2 read bytes. The expression is one that Go's parser takes.
func checkEscapes(s string) error {
	for {
		_, escaped, found := strings.Cut(s, `\`)
		if !found || escaped == "" {
			return nil
		}
		s = escaped[1:]
		switch kind := escaped[0]; kind {
		case 'Q': // a literal
			_, s, _ = strings.Cut(s, `\E`)
		case 'p', 'P':
			name := s[:1]
			if braced, ok := strings.CutPrefix(s, "{"); ok {
				name, s, _ = strings.Cut(braced, "}")
			}
			if !re2Class(strings.TrimPrefix(name, "^")) {
				return fmt.Errorf("%q is not a Unicode class: use the letters of a general category or the name of a script, "+
					"with exact case", name)
			}
		case 'x', '4', '5', '6', '7':
			if code := codePoint(kind, s); code > math.MaxUint8 {
				return fmt.Errorf("character %#x is longer than one byte: write the character itself", code)
			}
		}
	}
}

// codePoint is what a numeric escape stands for; zero where it can't be more than a byte.
func codePoint(kind byte, rest string) int64 {
	digits, base := "", 16
	if braced, ok := strings.CutPrefix(rest, "{"); ok && kind == 'x' {
		digits, _, _ = strings.Cut(braced, "}")
	} else if kind != 'x' && len(rest) >= 2 {
		digits, base = string(kind)+rest[:2], 8
	}
	code, err := strconv.ParseInt(digits, base, 64)
	if err != nil {
		return 0 // fewer digits than that
	}
	return code
}

// re2Class tells whether RE2 knows a Unicode class: the categories of assigned characters, and scripts.
func re2Class(name string) bool {
	if name == "Any" {
		return true
	}
	if unicode.Categories[name] != nil {
		return name != "Cn" && name != "LC"
	}
	return unicode.Scripts[name] != nil
}

// maxProgramSize is some way below what RE2 compiles within its memory; the proxies' bootstrap allows as much.
const maxProgramSize = 20_000

// programSize estimates, rather too high, how many instructions RE2 needs: it matches bytes, so a range of characters
// becomes a few ranges of bytes.
func programSize(p *syntax.Prog) int {
	const perRange = 5
	n := 0
	for _, inst := range p.Inst {
		n++
		switch inst.Op {
		case syntax.InstRune:
			n += perRange * (len(inst.Rune) + 1) / 2
		case syntax.InstRuneAny, syntax.InstRuneAnyNotNL:
			n += 2 * perRange
		default:
		}
	}
	return n
}
