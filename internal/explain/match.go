// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/http"
	"regexp"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// Request is what a caller asks for, as the application gets it.
type Request struct {
	Method, Host string
	// Path without query.
	Path    string
	Headers http.Header
}

// headers are those that policies see, where Host is the host that is asked for.
func (q Request) headers() http.Header {
	out := http.Header{"Host": {q.Host}}
	for name, values := range q.Headers {
		if name != "Host" {
			out[name] = values
		}
	}
	return out
}

// truth is whether something matches; unknown is more than no.
type truth int

const (
	no truth = iota
	unknown
	yes
)

func is(so bool) truth {
	if so {
		return yes
	}
	return no
}

func isFor(p model.AccessPolicy, port uint16) bool {
	return p.Ports == nil || slices.Contains(p.Ports, port)
}

// match finds the rule of a policy that matches, or that may.
func match(p model.AccessPolicy, c Caller) (rule string, matches truth) {
	for _, r := range p.Rules {
		if m := matchRule(r, p.Deny, c); m > matches {
			rule, matches = r.Label(), m
		}
	}
	return rule, matches
}

func matchRule(r model.AccessRule, deny bool, c Caller) truth {
	if r.Ports != nil && !slices.Contains(r.Ports, c.port) {
		return no
	}
	from := func(s model.AccessSource) bool { return s.Is(c.identity) }
	if r.Sources != nil && !slices.ContainsFunc(r.Sources, from) {
		return no
	}
	switch {
	case r.Request == nil:
		return yes
	case c.request == nil, r.Request.CEL != "", len(r.Request.Claims) > 0:
		return unknown
	}
	return is(matchRequest(*r.Request, deny, *c.request))
}

func matchRequest(r model.AccessRequest, deny bool, q Request) bool {
	if len(r.Methods) > 0 && !slices.Contains(r.Methods, q.Method) {
		return false
	}
	if !route.GuardTakesPath(r, deny, q.Path) {
		return false
	}
	if len(r.Hosts) > 0 && !slices.ContainsFunc(r.Hosts, func(h string) bool { return isHost(h, q.Host) }) {
		return false
	}
	return !slices.ContainsFunc(r.Headers, func(h model.AccessHeader) bool { return !hasHeader(h, deny, q.headers()) })
}

// isPath compares paths; a prefix is of whole elements.
func isPath(m model.StringMatch, path string) bool {
	if m.Type == model.MatchPrefix {
		element := strings.TrimSuffix(m.Value, "/")
		return path == element || strings.HasPrefix(path, element+"/")
	}
	return isValue(m, path)
}

func isValue(m model.StringMatch, value string) bool {
	switch m.Type {
	case model.MatchPrefix:
		return strings.HasPrefix(value, m.Value)
	case model.MatchRegex:
		re, err := regexp.Compile(`\A(?:` + m.Value + `)\z`)
		return err == nil && re.MatchString(value)
	case model.MatchExact:
	}
	return value == m.Value
}

// isHost compares a host, with or without a port, with a name or "*.name".
func isHost(want, host string) bool {
	host = strings.ToLower(host)
	if name, _, ok := strings.Cut(host, ":"); ok {
		host = name
	}
	if below, ok := strings.CutPrefix(want, "*"); ok {
		return strings.HasSuffix(host, below) && len(host) > len(below)
	}
	return host == want
}

// hasHeader goes by all values, each of which may be a list: a DENY policy matches with any of them, an ALLOW policy
// with all.
func hasHeader(h model.AccessHeader, deny bool, headers http.Header) bool {
	var values []string
	for _, line := range headers.Values(h.Name) {
		for v := range strings.SplitSeq(line, ",") {
			values = append(values, strings.TrimSpace(v))
		}
	}
	switch {
	case h.Value == nil:
		return len(values) > 0
	case deny:
		return slices.ContainsFunc(values, func(v string) bool { return isValue(*h.Value, v) })
	}
	return len(values) > 0 && !slices.ContainsFunc(values, func(v string) bool { return !isValue(*h.Value, v) })
}
