// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// JSON is a document without what may be a secret, indented. It takes time in proportion to the document, and ends with
// the context.
func JSON(ctx context.Context, in []byte) ([]byte, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	v, err := Value(ctx, v)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Value is what encoding/json makes of a document, without what may be a secret. It may change what it is given.
func Value(ctx context.Context, v any) (any, error) {
	r := redactor{ctx: ctx}
	v = r.value("", v)
	if r.err != nil {
		return nil, r.err
	}
	return v, nil
}

// whole are fields whose strings are taken out as they are: they hold scripts, keys, expressions, and what headers and
// descriptors are compared with. inline_string and inline_bytes are Envoy's, for data of whatever kind.
var whole = []string{
	"config", "descriptor_value", "expression", "inline", "inline_bytes", "inline_code", "inline_string", "source",
	"string_value", "valuePrefix", "value_prefix",
}

// entire are fields that are taken out with all that is in them: what extensions are configured with, in whatever
// form, and keys.
var entire = []string{"binaryData", "configuration", "private_key", "privateKey", "stringData"}

// free are fields whose own fields are up to others, as implementations: names stay, values don't.
var free = []string{"options"}

// public are what holds certificates, which anybody may see.
var public = []string{"certificate_chain", "trusted_ca", "ca_certificates"}

// asked are what Envoy compares the value of a name with.
var asked = []string{
	"contains_match", "exact_match", "exact_match_map", "prefix_match", "prefix_match_map",
	"safe_regex_match", "string_match", "suffix_match", "value_match",
}

// allowed are the domains of annotations that the mesh and Kubernetes write, which hold no secrets.
var allowed = []string{
	"fairway.dev", "gateway.networking.k8s.io", "deployment.kubernetes.io", "endpoints.kubernetes.io",
}

// scheduling are lists of labels and taints, which have names and values and are no secrets.
var scheduling = []string{"matchExpressions", "taints", "tolerations"}

// ofSecrets are fields that have the name of a secret, and hold names of where it is looked for.
var ofSecrets = []string{"fromCookies"}

// wrappers are types of protobuf for what has a schema that only its reader knows.
var wrappers = []string{"protobuf.StringValue", "protobuf.BytesValue", "protobuf.Struct", "TypedStruct"}

// redactor of a document.
type redactor struct {
	ctx   context.Context
	err   error
	steps int
}

func (r *redactor) text(in string) string {
	out, err := Text(r.ctx, []byte(in))
	if err != nil {
		r.err = err
	}
	return string(out)
}

func (r *redactor) value(key string, v any) any {
	if r.steps++; r.steps%linesAtATime == 0 && r.err == nil {
		r.err = r.ctx.Err()
	}
	if r.err != nil {
		return nil
	}
	if v != nil && slices.Contains(entire, key) {
		return Mark
	}
	secret := isSecret.MatchString(key) && !slices.Contains(ofSecrets, key)
	switch v := v.(type) {
	case string:
		switch {
		case slices.Contains(whole, key) && v != "", secret && !harmless(key, v):
			return Mark
		case key == "uri":
			return r.uri(v)
		}
		return r.text(v)
	case json.Number, float64, int64:
		if secret && !harmless(key, fmt.Sprint(v)) {
			return Mark
		}
		return v
	case []any:
		for n := range v {
			v[n] = r.value(key, v[n])
		}
		return v
	case map[string]any:
		return r.object(key, secret, v)
	}
	return v
}

// object takes out of an object what is of no use to others, and the value of what has a name: it may be a variable of
// an environment, a header, a claim or a parameter of a query.
func (r *redactor) object(key string, secret bool, o map[string]any) any {
	if kind, _ := o["kind"].(string); kind == "Secret" || kind == "SecretList" {
		return map[string]any{"kind": kind, "redacted": Mark}
	}
	delete(o, "managedFields")
	if name, is := nameOf(o); is && !slices.Contains(scheduling, key) {
		for _, field := range append([]string{"value", "values"}, asked...) {
			if v, is := o[field]; is && !figure(name, v) {
				o[field] = Mark
			}
		}
	}
	kind, _ := o["@type"].(string)
	wrapped := slices.ContainsFunc(wrappers, func(w string) bool { return strings.HasSuffix(kind, w) })
	for field, v := range o {
		switch {
		case field == "@type":
		case field == "annotations" || field == "podAnnotations":
			o[field] = r.annotations(v)
		case slices.Contains(free, key), wrapped, o["path"] != nil && (field == "value" || field == "values") && isObject(v):
			// Of metadata, a value by a path is what a token claims.
			if !figure("", v) {
				o[field] = Mark
			}
		case slices.Contains(public, key) && (field == "inline_bytes" || field == "inline_string"):
			o[field] = certificates(v, field == "inline_bytes")
		case secret && (field == "value" || field == "values" || field == "data"):
			o[field] = r.value(key, v)
		default:
			o[field] = r.value(field, v)
		}
	}
	for field, v := range o { // a label, or whatever else names are made of
		if clean := r.text(field); clean != field {
			delete(o, field)
			o[clean] = v
		}
	}
	return o
}

func isObject(v any) bool {
	_, is := v.(map[string]any)
	return is
}

// figure tells whether the value of a name is none, or a number, which has no secret but by its name.
func figure(name string, v any) bool {
	switch v := v.(type) {
	case nil, bool:
		return true
	case json.Number, float64, int64:
		return !isSecret.MatchString(name) || harmless(name, fmt.Sprint(v))
	case string: // as Envoy writes those of 64 bits
		return isFigure.MatchString(v) && (!isSecret.MatchString(name) || harmless(name, v))
	}
	return false
}

// nameOf is the name of something with a value; names of Envoy's that begin with a colon are those of a request's
// parts, as its path.
func nameOf(o map[string]any) (string, bool) {
	for _, field := range []string{"name", "key", "header_name"} {
		if name, is := o[field].(string); is && !strings.HasPrefix(name, ":") {
			return name, true
		}
	}
	if input, is := o["input"].(map[string]any); is { // of a matcher
		if typed, is := input["typed_config"].(map[string]any); is {
			return nameOf(map[string]any{"header_name": typed["header_name"]})
		}
	}
	return "", false
}

// uri without its path, where that of a server may have a secret.
func (r *redactor) uri(in string) string {
	u, err := url.Parse(in)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" {
		return r.text(in)
	}
	if strings.Trim(u.Path, "/") == "" && u.RawQuery == "" && u.User == nil && u.Fragment == "" {
		return r.text(in)
	}
	return r.text(u.Scheme + "://" + u.Host + "/" + Mark)
}

func (r *redactor) annotations(v any) any {
	all, is := v.(map[string]any)
	if !is {
		return r.value("", v)
	}
	for name, said := range all {
		domain, _, _ := strings.Cut(name, "/")
		switch {
		case name == "kubectl.kubernetes.io/last-applied-configuration":
			delete(all, name)
		case slices.Contains(allowed, domain):
			all[name] = r.value(name[len(domain):], said)
		default:
			all[name] = Mark
		}
	}
	return all
}
