// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/model"
)

// This file puts the pieces of the model into words: a line for each thing, as a reviewer reads it.

// ruleLine is a rule of a table: where it is from, what it matches, what it does.
func ruleLine(r model.Rule) string {
	does := []string{"an error"}
	if !r.Invalid {
		does = ruleDoes(r)
	}
	return fmt.Sprintf("%s %s/%s rule %s: %s → %s", r.Source.Kind, r.Source.Namespace, r.Source.Name, ruleLabel(r),
		matchWords(r.Match), strings.Join(does, "; "))
}

func ruleDoes(r model.Rule) (out []string) {
	for _, f := range r.Filters {
		out = append(out, filterWords(f))
	}
	var backends []string
	for _, b := range r.Backends {
		backends = append(backends, fmt.Sprintf("%d %s", b.Weight, backendWords(b)))
	}
	switch {
	case len(backends) == 1 && r.Backends[0].Weight == 1:
		out = append(out, "to "+backendWords(r.Backends[0]))
	case len(backends) > 0:
		out = append(out, "to "+strings.Join(backends, " + "))
	case len(out) == 0 || r.Filters[len(r.Filters)-1].Redirect == nil:
		out = append(out, "to no backend")
	}
	out = append(out, timeoutWords("timeout", r.RequestTimeout)...)
	out = append(out, timeoutWords("timeout of a try", r.BackendTimeout)...)
	if t := r.Retry; t != nil {
		text := fmt.Sprintf("%d retries", t.Attempts)
		if len(t.Codes) > 0 {
			text += fmt.Sprint(" on ", t.Codes)
		}
		if t.Backoff != 0 {
			text += fmt.Sprint(" after ", t.Backoff)
		}
		out = append(out, text)
	}
	if s := r.SessionPersistence; s != nil {
		out = append(out, sessionWords(*s))
	}
	return out
}

func sessionWords(s model.SessionPersistence) string {
	text := "sessions by cookie"
	if s.Header {
		text = "sessions by header"
	}
	if s.Name != "" {
		text += " " + word(s.Name)
	}
	if s.CookieLifetime != 0 {
		text += fmt.Sprint(" for ", s.CookieLifetime)
	}
	return text
}

func timeoutWords(what string, d *time.Duration) []string {
	switch {
	case d == nil:
		return nil
	case *d == 0:
		return []string{"no " + what}
	}
	return []string{fmt.Sprint(what, " ", *d)}
}

func matchWords(m model.Match) string {
	var out []string
	if m.Path != nil && *m.Path != (model.StringMatch{Type: model.MatchPrefix, Value: "/"}) {
		out = append(out, "path "+comparison(*m.Path))
	}
	if m.Method != "" {
		out = append(out, "method "+word(m.Method))
	}
	if m.GRPCType != "" {
		out = append(out, "call "+comparison(model.StringMatch{Type: m.GRPCType, Value: m.GRPCService + "/" + m.GRPCMethod}))
	}
	for _, h := range m.Headers {
		out = append(out, "header "+word(h.Name)+" "+comparison(h.StringMatch))
	}
	for _, q := range m.Query {
		out = append(out, "query "+word(q.Name)+" "+comparison(q.StringMatch))
	}
	if len(out) == 0 {
		return "anything"
	}
	return strings.Join(out, " and ")
}

func comparison(m model.StringMatch) string {
	sign := map[model.MatchType]string{model.MatchExact: "=", model.MatchPrefix: "under", model.MatchRegex: "~"}[m.Type]
	return sign + " " + word(m.Value)
}

func filterWords(f model.Filter) string {
	switch {
	case f.RequestHeaders != nil:
		return "request " + changeWords(f.RequestHeaders)
	case f.ResponseHeaders != nil:
		return "response " + changeWords(f.ResponseHeaders)
	case f.Redirect != nil:
		r := f.Redirect
		out := fmt.Sprint("redirect ", r.StatusCode)
		parts := []struct{ name, value string }{{"scheme", r.Scheme}, {"host", r.Hostname}, {"port", number(r.Port)}}
		for _, part := range parts {
			if part.value != "" {
				out += " " + part.name + " " + word(part.value)
			}
		}
		return out + pathWords(r.Path)
	case f.Rewrite != nil:
		out := "rewrite"
		if f.Rewrite.Hostname != "" {
			out += " host " + word(f.Rewrite.Hostname)
		}
		return out + pathWords(f.Rewrite.Path)
	case f.Mirror != nil:
		return fmt.Sprintf("mirror %d/%d to %s", f.Mirror.Numerator, f.Mirror.Denominator, backendWords(f.Mirror.Backend))
	case f.CORS != nil:
		return corsWords(f.CORS)
	case f.ExternalAuth != nil:
		return authWords(f.ExternalAuth)
	case f.Extension != nil:
		return extensionWords(*f.Extension)
	}
	return "a filter of no kind"
}

func extensionWords(e model.Extension) string {
	switch {
	case e.Invalid:
		return "through extension " + e.Name + " that can't be used"
	case e.Refused:
		return "through extension " + e.Name + " that may not run"
	case e.Lua != nil:
		return "through script " + e.Name + " " + word(e.Lua.Source)
	case e.Wasm != nil:
		w := e.Wasm
		return fmt.Sprintf("through module %s %.12s of %d bytes, given %q, root %q, request %s, answer %s", e.Name, w.Digest,
			len(w.Code), w.Config, w.Root, processedWords(w.Request), processedWords(w.Response))
	}
	p := e.Processor
	return fmt.Sprintf("through %s by %s%s within %s, request %s, answer %s%s", e.Name, portWords(p.Service), inTLS(p.TLS),
		p.Timeout, processedWords(p.Request), processedWords(p.Response), flags(map[string]bool{
			"open": p.Open, "changing " + strings.Join(p.Changes, " "): p.Changes != nil,
		}))
}

func processedWords(p model.Processed) string {
	return fmt.Sprintf("(headers %t, body %q, trailers %t)", p.Headers, p.Body, p.Trailers)
}

func pathWords(p *model.PathChange) string {
	switch {
	case p == nil:
		return ""
	case p.Full != nil:
		return " path " + word(*p.Full)
	case p.Prefix != nil:
		return " prefix " + word(*p.Prefix)
	}
	return " path to nothing"
}

func authWords(a *model.ExternalAuth) string {
	switch {
	case a.Invalid && a.Open:
		return "ask nobody, and let pass"
	case a.Invalid:
		return "ask an authorization service that can't be"
	}
	out := "ask " + portWords(a.Service) + inTLS(a.TLS) + " by HTTP"
	if a.GRPC {
		out = "ask " + portWords(a.Service) + inTLS(a.TLS) + " by gRPC"
	}
	if a.Path != "" {
		out += " under " + word(a.Path)
	}
	for _, part := range []struct {
		name   string
		values []string
	}{{"showing", a.Shown}, {"taking", a.Taken}} {
		if len(part.values) > 0 {
			out += " " + part.name + " " + strings.Join(part.values, ",")
		}
	}
	if a.Refused {
		out = "may not " + out
	}
	if a.MaxBody > 0 {
		out += fmt.Sprintf(" with bodies of %d bytes", a.MaxBody)
	}
	if a.Open {
		out += ", or else let pass what it is about,"
	}
	return out + fmt.Sprint(" within ", a.Timeout)
}

func corsWords(c *model.CORS) string {
	out := "CORS"
	for _, part := range []struct {
		name   string
		values []string
	}{
		{"origins", c.AllowOrigins}, {"methods", c.AllowMethods}, {"headers", c.AllowHeaders}, {"exposes", c.ExposeHeaders},
	} {
		if len(part.values) > 0 {
			out += " " + part.name + " " + strings.Join(part.values, ",")
		}
	}
	if c.AllowCredentials {
		out += " with credentials"
	}
	return out + fmt.Sprint(" for ", c.MaxAge)
}

func changeWords(h *model.HeaderChange) string {
	var out []string
	for _, s := range h.Set {
		out = append(out, "set "+word(s.Name)+": "+word(s.Value))
	}
	for _, a := range h.Add {
		out = append(out, "add "+word(a.Name)+": "+word(a.Value))
	}
	for _, r := range h.Remove {
		out = append(out, "remove "+word(r))
	}
	return strings.Join(out, ", ")
}

func backendWords(b model.Backend) string {
	if b.Invalid {
		return "500"
	}
	out := portWords(b.Port) + inTLS(b.TLS)
	if h := b.External; h != nil {
		out = fmt.Sprintf("%s outside, by %s", h.Authority(), h.Name)
	}
	var filters []string
	for _, f := range b.Filters {
		filters = append(filters, filterWords(f))
	}
	if len(filters) > 0 {
		out += " (" + strings.Join(filters, "; ") + ")"
	}
	if b.Session != nil {
		out += " with " + sessionWords(*b.Session)
	}
	return out
}

func portWords(p model.ServicePort) string {
	return fmt.Sprintf("%s/%s:%d", p.Namespace, p.Service, p.Port)
}

func portList(ports []model.ServicePort) string {
	var out []string
	for _, p := range ports {
		out = append(out, portWords(p))
	}
	return strings.Join(out, ", ")
}

func number(n uint16) string {
	if n == 0 {
		return ""
	}
	return strconv.Itoa(int(n))
}

// word is quoted where it would not be read as one.
func word(s string) string {
	if s == "" || strings.ContainsAny(s, " ,;") || strconv.Quote(s) != `"`+s+`"` {
		return strconv.Quote(s)
	}
	return s
}

// policyWords are what a part of a TrafficPolicy asks for; "" if nothing.
func policyWords(part string, v any) string {
	if words := setWords(reflect.ValueOf(v)); words != "" {
		return "\n    " + part + ": " + words
	}
	return ""
}

// setWords lists what is set in a value, by its fields.
func setWords(v reflect.Value) string {
	if d, ok := v.Interface().(time.Duration); ok {
		return d.String()
	}
	switch v.Kind() {
	case reflect.Pointer:
		if v.IsNil() {
			return ""
		}
		if words := setWords(v.Elem()); words != "" {
			return words
		}
		return "yes"
	case reflect.Struct:
		var set []string
		for n := range v.NumField() {
			if f := v.Field(n); !f.IsZero() {
				set = append(set, v.Type().Field(n).Name+" "+setWords(f))
			}
		}
		if set == nil {
			return ""
		}
		return "{" + strings.Join(set, ", ") + "}"
	}
	return fmt.Sprint(v)
}
