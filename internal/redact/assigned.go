// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"regexp"
	"strings"
)

const (
	// within are words that make the value of a name a secret, whatever else the name has.
	within = `passw(?:or)?d|passphrase|passcode|pwd|secret|token|credential|cookie|session[_-]?id|signature|` +
		`(?:api|access|private|client|account|shared|signing|encryption|master|license)[_-]?key`
	// alone are words that do so as the last part of a name.
	alone = `authorization|pass|pin|auth|otp|psk|jwt|sig`
	// secretName is the name of a secret.
	secretName = `(?:[\w.-]*(?:` + within + `)[\w.-]*|(?:\b|_|(?-i:[a-z](?:Pass|Pin|Auth|Otp)\b)|[a-z]_)(?:` + alone +
		`)|(?-i:\b[\w.-]*[a-z0-9](?:Pass|Pin|Auth|Authorization|Otp|Jwt)))`
	is = `\\*["']?\s*(?::=|=>|[:=]|%3[dD]|%3[aA])[ \t]*`
)

// secretHints is one of the words in each name of a secret.
var secretHints = []string{
	"pass", "pwd", "secret", "token", "credential", "cookie", "session", "signature", "key", "auth", "pin", "otp", "psk",
	"jwt", "sig",
}

var (
	// Each has a group that is the name, and ends where the value begins.
	headers = regexp.MustCompile(`(?i)((?:\b|_)(?:(?:set-)?cookies?2?|(?:proxy-|www-)?auth(?:orization|enticate)))` + is +
		`|(digest[ \t]+username)=`)
	names = regexp.MustCompile(`(?i)(` + secretName + `)` + is)
	flags = regexp.MustCompile(`(?i)(--?[\w.-]*(?:` + within + `)[\w.-]*|--?(?:[\w-]+-)?(?:` + alone + `))[ \t]+`)
	prose = regexp.MustCompile(`(?i)\b(passw(?:or)?d|passphrase|passcode|pwd|api[ _-]?key)` +
		`(?:[ \t]+(?:is|was)|[ \t]*[:=])?[ \t]+`)
	// commands are options of programs that take a password so; only lines that name one of these are asked.
	commands = regexp.MustCompile(`(\s-[apuw]|\s--user)(?:[ \t]*=?[ \t]*)`)
	// awaits the value in the next line.
	awaits = regexp.MustCompile(`(?i)` + secretName + `\\*["']?\s*[:=][ \t]*[|>]?[+-]?[ \t]*$`)

	last     = regexp.MustCompile(`(?i)(?:` + within + `|` + alone + `)$`)
	ofNames  = regexp.MustCompile(`(?i)(?:names?|refs?|kind|type|namespace)$`)
	isFigure = regexp.MustCompile(`^-?[0-9]+(?:\.[0-9]+)?(?:e[+-]?[0-9]+)?$`)
	isSecret = regexp.MustCompile(`(?i)^` + secretName + `$`)
)

// speech are words after "password" and the like that are no secrets.
var speech = wordSet(`about and are as at auth authentication authorization based by can change could does doesn't
	entry error expired failed failure field file for from has hash in incorrect information invalid is issuer login
	manager match mismatch missing must needed not of on or policy prompt rejected request required reset review service
	store that this to user validation verification volume was which will with without wrong`)

func wordSet(all string) map[string]bool {
	out := map[string]bool{}
	for _, w := range strings.Fields(all) {
		out[w] = true
	}
	return out
}

// nothing are values that are none.
var nothing = wordSet(`true false null nil <nil> none - unset`)

// harmless tells whether the value of a name is none of a secret: there is none, or a figure of a name that only has to
// do with secrets, as a count of them; or the name is for names of secrets.
func harmless(name, value string) bool {
	value = strings.Trim(value, `"'\`)
	return value == "" || nothing[strings.ToLower(value)] || ofNames.MatchString(name) ||
		isFigure.MatchString(value) && !last.MatchString(name)
}

// assigned is a rule for values that follow names. The value of a header ends with the line, or the string that it is
// in; another with white space as well.
func assigned(pattern *regexp.Regexp, header bool, words ...string) rule {
	return rule{words, func(line []byte) []byte {
		var out []byte
		last, counted, inside := 0, 0, false
		for _, m := range pattern.FindAllSubmatchIndex(line, -1) {
			if m[0] < last {
				continue // it was within a value
			}
			inside = inside != oddQuotes(line[counted:m[0]])
			counted = m[0]
			group := m[2:4]
			if group[0] < 0 {
				group = m[4:6]
			}
			name := string(line[group[0]:group[1]])
			v := value{line: line, header: header, quoted: quote(bytes.TrimLeft(line[group[1]:m[1]], `\`))}
			v.inside = inside && !v.quoted
			from, to := v.find(m[1])
			text := string(line[from:to])
			switch {
			case from == to, !header && pattern != commands && harmless(name, text),
				pattern == prose && speech[strings.ToLower(strings.TrimRight(text, ".,:;!)"))]:
				continue
			}
			out = append(append(out, line[last:from]...), Mark...)
			last = to
		}
		return append(out, line[last:]...)
	}}
}

func quote(s []byte) bool { return len(s) > 0 && (s[0] == '"' || s[0] == '\'') }

// oddQuotes tells whether a text ends in a string that it began, or the other way round.
func oddQuotes(text []byte) (odd bool) {
	for n := 0; n < len(text); n++ {
		switch text[n] {
		case '\\':
			n++
		case '"':
			odd = !odd
		}
	}
	return odd
}

// value is the one of a name in a line.
type value struct {
	line   []byte
	header bool
	// quoted: its name has quotes, so it has, or is none of a text. inside: name and value are in one string.
	quoted, inside bool
}

// find the value that begins at a place.
func (v value) find(at int) (from, to int) {
	slashes := at
	for slashes < len(v.line) && v.line[slashes] == '\\' {
		slashes++
	}
	if quote(v.line[slashes:]) && (v.quoted || !v.header) {
		return slashes + 1, v.closing(slashes+1, slashes-at)
	}
	switch {
	case v.quoted && bytes.HasPrefix(v.line[at:], []byte(Mark)):
		return at, at + len(Mark)
	case v.quoted && at < len(v.line) && v.line[at] == '[':
		return at, v.until(at, "]")
	case at < len(v.line) && v.line[at] == '{' && !v.header:
		return at, at // its fields have names
	case v.quoted:
		return at, v.until(at, ",}] \t")
	case v.header:
		return at, v.open(at, "")
	}
	to = v.open(at, " \t")
	for to > at && strings.IndexByte(",;)}", v.line[to-1]) >= 0 {
		to--
	}
	return at, to
}

// until one of some bytes, or the end.
func (v value) until(at int, any string) int {
	if n := bytes.IndexAny(v.line[at:], any); n >= 0 {
		return at + n
	}
	return len(v.line)
}

// closing is where a string ends that began with a quote after some backslashes.
func (v value) closing(at, slashes int) int {
	began := v.line[at-1]
	run := 0
	for n := at; n < len(v.line); n++ {
		c := v.line[n]
		switch {
		case c == '\\':
			run++
			continue
		case c == began && (run == slashes || slashes == 0 && run%2 == 0), c == '"' && run < slashes:
			return n - min(run, slashes)
		}
		run = 0
	}
	return len(v.line)
}

// open is where a value without quotes ends; it may have quotes within.
func (v value) open(at int, any string) int {
	in := false
	for n := at; n < len(v.line); n++ {
		c := v.line[n]
		switch {
		case c == '\\' && n+1 < len(v.line):
			if v.inside && v.line[n+1] == 'n' {
				return n // the end of a line in a string
			}
			n++
		case c == '"' && v.inside && !in && v.line[n-1] != '=':
			return n
		case c == '"':
			in = !in
		case !in && strings.IndexByte(any, c) >= 0:
			return n
		}
	}
	return len(v.line)
}

var pair = regexp.MustCompile(`((?:^|\\n|[ \t:])')([\w.-]+)(', ')([^\n]*)`)

// pairs are headers as Envoy logs them, one a line.
func pairs() rule {
	return rule{[]string{"', '"}, func(line []byte) []byte {
		return replaceFunc(pair, line, func(m [][]byte) []byte {
			if value := strings.Trim(string(m[4]), "'"); isFigure.MatchString(value) && !isSecret.Match(m[2]) {
				return m[0]
			}
			return []byte(string(m[1]) + string(m[2]) + string(m[3]) + Mark + "'")
		})
	}}
}
