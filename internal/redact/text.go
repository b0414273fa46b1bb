// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package redact takes secrets out of what is handed to others: out of texts by what secrets look like, and out of
// objects and configurations by where they may be. It knows nothing of where these come from. Where it is not sure it
// takes out more: a report that lacks a value still helps, and one that has a secret in it can't be taken back.
package redact

import "regexp"

// Mark stands for what was taken out.
const Mark = "[redacted]"

// rule replaces what a secret looks like.
type rule struct {
	pattern *regexp.Regexp
	with    string
}

// secretWords are names whose values are secrets, whatever else the name has.
const secretWords = `[\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|access[_-]?key|private[_-]?key|` +
	`credential|authorization|cookie|session[_-]?id|signature)[\w.-]*`

var rules = []rule{
	// Keys in PEM, also where a text has "\n" for the ends of lines, or where it is cut off.
	{regexp.MustCompile(`(?s)-----BEGIN [A-Z0-9 ]*PRIVATE KEY-----.*?(?:-----END [A-Z0-9 ]*PRIVATE KEY-----|$)`), Mark},
	// JSON Web Tokens, those of service accounts among them.
	{regexp.MustCompile(`\beyJ[\w-]{5,}\.[\w-]+\.?[\w-]*`), Mark},
	{regexp.MustCompile(`(?i)\b(bearer|basic|digest|negotiate|token)([ \t]+|%20|\+)[\w.~+/=:-]{4,}`), "$1 " + Mark},
	// Headers whose values have several parts, to the end of the line.
	{
		regexp.MustCompile(`(?i)\b((?:set-)?cookie|(?:proxy-|www-)?auth(?:orization|enticate))(\s*[:=]\s*)[^"'\r\n\\]+`),
		"${1}${2}" + Mark,
	},
	// Names of users and passwords in URLs, and all that they ask for.
	{regexp.MustCompile(`(://)[^/\s"'@]+@`), "${1}" + Mark + "@"},
	{regexp.MustCompile(`([?&][\w.\[\]%-]+=)[^&\s"'\\<>]+`), "${1}" + Mark},
	// NAME=VALUE, NAME: VALUE and "NAME":"VALUE", the quotes escaped or not.
	{
		regexp.MustCompile(`(?i)(\\*["']?` + secretWords + `\\*["']?\s*[:=]\s*\\*["'])((?:[^"'\\]|\\[^"'])+)`),
		"${1}" + Mark,
	},
	{regexp.MustCompile(`(?i)\b(` + secretWords + `\s*[:=]\s*)[^\s"',;&}\]\[]+`), "${1}" + Mark},
	// Keys of well-known services.
	{regexp.MustCompile(`\b(?:AKIA|ASIA)[0-9A-Z]{16}\b|\bgh[pousr]_\w{20,}|\bxox[abprs]-[\w-]{10,}`), Mark},
}

// Text without what looks like a secret.
func Text(in []byte) []byte {
	for _, r := range rules {
		in = r.pattern.ReplaceAll(in, []byte(r.with))
	}
	return in
}

// String is Text of a string.
func String(in string) string { return string(Text([]byte(in))) }
