// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"slices"
	"strings"
	"unicode/utf8"

	"golang.org/x/net/http/httpguts"
)

// Malformed says why Envoy takes a request for none, and answers 400 before it looks for a table; "" if it doesn't. The
// request is as it is sent.
func (q Asked) Malformed() string {
	switch {
	case !strings.HasPrefix(q.Path, "/"):
		return "the path must begin with a slash"
	case strings.Contains(q.Path, "#"):
		return "the path has a fragment (#)"
	case strings.ContainsFunc(q.Path, func(r rune) bool { return notPrintable(r) && r < utf8.RuneSelf }):
		return "the path has characters that must be escaped"
	case strings.Contains(dotsWithParameters.ReplaceAllString(q.plain(), "$1"), "%00"):
		return "the path has an escaped zero byte"
	case strings.ContainsFunc(q.Host, notOfHost):
		return "the host has characters that are not those of a host"
	}
	for _, name := range sortedNames(q.Headers) {
		switch {
		case !httpguts.ValidHeaderFieldName(name):
			return "a header has a name with characters that are not those of one"
		case slices.ContainsFunc(q.Headers[name], func(v string) bool { return !httpguts.ValidHeaderFieldValue(v) }):
			return "header " + name + " has control characters"
		}
	}
	return ""
}

// notPrintable takes what is no UTF-8 for no printable character either.
func notPrintable(r rune) bool { return r <= ' ' || r >= 0x7f }

func notOfHost(r rune) bool { return notPrintable(r) || strings.ContainsRune("\"#/<>?\\^`{|}", r) }

// OddPath tells that Envoy takes a request for none by what of its path is no ASCII, if it comes in HTTP/1.1. HTTP/2
// has any.
func (q Asked) OddPath() bool {
	return strings.ContainsFunc(q.Path, func(r rune) bool { return r >= utf8.RuneSelf })
}

// OddHost tells that Envoy takes a request for none by its host, if it comes in HTTP/2: with a user (RFC 9113, 8.3.1).
func (q Asked) OddHost() bool { return strings.Contains(q.Host, "@") }

// methods of HTTP/1.1 that Envoy knows, besides those that a rule can ask for.
var methods = []string{
	"ACL", "BIND", "CHECKOUT", "COPY", "LINK", "LOCK", "MERGE", "MKACTIVITY", "MKCALENDAR", "MKCOL", "MOVE", "MSEARCH",
	"NOTIFY", "PROPFIND", "PROPPATCH", "PURGE", "REBIND", "REPORT", "SEARCH", "SOURCE", "SUBSCRIBE", "UNBIND", "UNLINK",
	"UNLOCK", "UNSUBSCRIBE",
}

// OddMethod tells that Envoy takes a request for none by its method, if it comes in HTTP/1.1. HTTP/2 has any.
func (q Asked) OddMethod() bool {
	return !slices.Contains(matchable, q.Method) && !slices.Contains(methods, q.Method)
}
