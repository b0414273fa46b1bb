// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package redact takes secrets out of what is handed to others: out of texts by what secrets look like, and out of
// objects and configurations by where they may be. It knows nothing of where these come from. Where it is not sure it
// takes out more: a report that lacks a value still helps, and one that has a secret in it can't be taken back.
package redact

import (
	"bytes"
	"context"
	"regexp"
	"strings"
)

// Mark stands for what was taken out.
const Mark = "[redacted]"

const (
	// linesAtATime is after how many lines, and values of JSON, the context is asked.
	linesAtATime = 256
	// longestLine is what is judged of a line, or of a string of one. Longer ones are nobody's to read, and the
	// expressions know no context.
	longestLine = 256 << 10
	// mostRounds bounds how often the rules are asked about a line: what one took out may show something to another.
	mostRounds = 4
)

// rule takes out of a line what it knows. Expressions are slow: they see only lines with one of the words, which are in
// lower case.
type rule struct {
	words []string
	apply func(line []byte) []byte
}

// replaced is a rule by an expression alone.
func replaced(pattern, with string, words ...string) rule {
	p := regexp.MustCompile(pattern)
	return rule{words, func(line []byte) []byte { return p.ReplaceAll(line, []byte(with)) }}
}

// Text without what looks like a secret, and with visible escapes for whatever is neither printable nor the end of a
// line. It takes time in proportion to the text, and ends with the context.
func Text(ctx context.Context, in []byte) ([]byte, error) { return text(in, ctx.Err) }

// text until there is a reason to stop.
func text(in []byte, stop func() error) ([]byte, error) {
	in = lua(privateKeys(visible(in)))
	out := make([]byte, 0, len(in))
	var below block
	for n := 0; len(in) > 0; n++ {
		line, rest, found := bytes.Cut(in, []byte("\n"))
		if n%linesAtATime == 0 || len(line) > linesAtATime {
			if err := stop(); err != nil {
				return nil, err
			}
		}
		in = rest
		if depth, takes := below.takes(line); takes {
			out = append(append(out, line[:depth]...), Mark...)
		} else {
			below.begin(line)
			out = append(out, redacted(line)...)
		}
		if found {
			out = append(out, '\n')
		}
	}
	return out, nil
}

// block is a value below the line of its name: the next line, and what is as deep as that in YAML.
type block struct {
	depth  int
	first  bool // nothing of it has come yet
	active bool
}

func (b *block) begin(line []byte) {
	end := bytes.TrimRight(line, " \t")
	if len(end) == 0 || bytes.IndexByte([]byte(":=|>+-"), end[len(end)-1]) < 0 || !awaits.Match(line) {
		return
	}
	*b = block{depth: len(line) - len(bytes.TrimLeft(line, " \t")), first: true, active: true}
}

// takes tells whether a line is of the block, and how much of it is white space.
func (b *block) takes(line []byte) (depth int, of bool) {
	depth = len(line) - len(bytes.TrimLeft(line, " \t"))
	switch {
	case !b.active || depth == len(line):
		return 0, false
	case !b.first && depth <= b.depth:
		b.active = false
		return 0, false
	}
	b.first = false
	return depth, true
}

// String is Text of a string.
func String(in string) string {
	out, err := text([]byte(in), func() error { return nil })
	if err != nil {
		return Mark // can't be: there is no reason to stop
	}
	return string(out)
}

// redacted line.
func redacted(line []byte) []byte {
	if len(line) < 3 {
		return line
	}
	if len(line) > longestLine+len(Mark) { // what is cut may be a secret
		end := max(0, bytes.LastIndexAny(line[:longestLine], " \t"))
		line = append(line[:end:end], Mark...)
	}
	for range mostRounds {
		once := round(line)
		if bytes.Equal(once, line) {
			break
		}
		line = once
	}
	return line
}

// round of all rules.
func round(line []byte) []byte {
	lower := bytes.ToLower(line)
	for _, r := range rules {
		for _, w := range r.words {
			if bytes.Contains(lower, []byte(w)) {
				line = r.apply(line)
				break
			}
		}
	}
	return line
}

// rules in their order: what knows best where its secret ends comes first.
var rules = append(forms(),
	assigned(headers, true, "cookie", "auth", "digest"),
	pairs(),
	rule{[]string{"bearer", "basic", "digest", "negotiate", "token"}, schemes},
	// Names of users and passwords in URLs and in what is like them, and all that they ask for.
	replaced(`(://)[^/\s"']+@`, "${1}"+Mark+"@", "://"),
	rule{[]string{"@"}, atHosts},
	rule{[]string{"=", "?"}, queries},
	assigned(names, false, secretHints...),
	assigned(flags, false, secretHints...),
	assigned(prose, false, "passw", "passphrase", "passcode", "pwd", "key"),
	assigned(commands, false, "mysql", "mariadb", "sshpass", "redis-cli", "curl", "ldap"),
)

var scheme = regexp.MustCompile(`(?i)\b(bearer|basic|digest|negotiate|token)([ \t]+|%20|\+)([\w.~+/=:-]{4,})`)

// schemes are those of Authorization, wherever they are.
func schemes(line []byte) []byte {
	return replaceFunc(scheme, line, func(m [][]byte) []byte {
		value := strings.ToLower(string(m[3]))
		if strings.HasPrefix(value, "sha256:") || !strings.EqualFold(string(m[1]), "bearer") && speech[value] {
			return m[0]
		}
		return []byte(string(m[1]) + " " + Mark)
	})
}

var atHost = regexp.MustCompile(`([\w.%-]+):([^\s@/"']+)@([\w(\[.-]+)`)

// atHosts are user:password@host without a scheme, as in the names of data sources.
func atHosts(line []byte) []byte {
	return replaceFunc(atHost, line, func(m [][]byte) []byte {
		if string(m[3]) == "sha256" || string(m[3]) == "sha512" { // a tag and the digest of an image
			return m[0]
		}
		return []byte(string(m[1]) + ":" + Mark + "@" + string(m[3]))
	})
}

var (
	query = regexp.MustCompile(`([?&])([^?&\s"'\\<>]+)`)
	// bare is a part of a query that may be a secret without a name.
	bare = regexp.MustCompile(`^[\w.~%+-]{16,}$`)
	// parameter is the name of one.
	parameter = regexp.MustCompile(`^[\w.\[\]%~+:;-]*$`)
)

func queries(line []byte) []byte {
	return replaceFunc(query, line, func(m [][]byte) []byte {
		name, value, has := bytes.Cut(m[2], []byte("="))
		lower := strings.ToLower(string(m[2]))
		if n := strings.Index(lower, "%3d"); n >= 0 && n < len(name) {
			return []byte(string(m[1]) + string(m[2][:n+3]) + Mark)
		}
		switch {
		case has && len(value) > 0 && parameter.Match(name):
			return []byte(string(m[1]) + string(name) + "=" + Mark)
		case !has && bare.Match(name):
			return []byte(string(m[1]) + Mark)
		}
		return m[0]
	})
}

// replaceFunc is ReplaceAllFunc with the groups of each match.
func replaceFunc(p *regexp.Regexp, in []byte, with func([][]byte) []byte) []byte {
	all := p.FindAllSubmatchIndex(in, -1)
	if len(all) == 0 {
		return in
	}
	var out []byte
	last := 0
	for _, at := range all {
		groups := make([][]byte, len(at)/2)
		for n := range groups {
			if at[2*n] >= 0 {
				groups[n] = in[at[2*n]:at[2*n+1]]
			}
		}
		out = append(append(out, in[last:at[0]]...), with(groups)...)
		last = at[1]
	}
	return append(out, in[last:]...)
}
