// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
)

// JSON is a document without what may be a secret, indented.
func JSON(in []byte) ([]byte, error) {
	var v any
	d := json.NewDecoder(bytes.NewReader(in))
	d.UseNumber()
	if err := d.Decode(&v); err != nil {
		return nil, fmt.Errorf("not JSON: %w", err)
	}
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	if err := e.Encode(Value(v)); err != nil {
		return nil, err
	}
	return out.Bytes(), nil
}

// Value is what encoding/json makes of a document, without what may be a secret.
func Value(v any) any { return value("", v) }

// whole are fields whose strings are taken out as they are: they hold scripts, keys, expressions, and what headers and
// descriptors are compared with. inline_string and inline_bytes are Envoy's, for data of whatever kind.
var whole = []string{
	"config", "configuration", "descriptor_value", "expression", "inline", "inline_bytes", "inline_code", "inline_string",
	"private_key", "source", "string_value", "stringData", "valuePrefix", "value_prefix",
}

// public are what holds certificates, which anybody may see.
var public = []string{"certificate_chain", "trusted_ca", "ca_certificates"}

// asked are what Envoy compares the value of a name with.
var asked = []string{
	"contains_match", "exact_match", "prefix_match", "safe_regex_match", "string_match", "suffix_match", "value_match",
}

// allowed are the domains of annotations that the mesh and Kubernetes write, which hold no secrets.
var allowed = []string{
	"fairway.dev", "gateway.networking.k8s.io", "deployment.kubernetes.io", "endpoints.kubernetes.io",
}

func value(key string, v any) any {
	switch v := v.(type) {
	case string:
		if slices.Contains(whole, key) && v != "" {
			return Mark
		}
		return String(v)
	case []any:
		for n := range v {
			v[n] = value(key, v[n])
		}
		return v
	case map[string]any:
		return object(key, v)
	}
	return v
}

// object takes out of an object what is of no use to others, and the value of what has a name: it may be a variable of
// an environment, a header or a parameter of a query.
func object(key string, o map[string]any) any {
	if kind, _ := o["kind"].(string); kind == "Secret" || kind == "SecretList" {
		return map[string]any{"kind": kind, "redacted": Mark}
	}
	if slices.Contains(public, key) {
		return o
	}
	delete(o, "managedFields")
	if kind, _ := o["type"].(string); named(o) && kind != "COUNTER" && kind != "GAUGE" { // those are Envoy's figures
		for _, field := range append([]string{"value"}, asked...) {
			switch o[field].(type) {
			case nil, bool, json.Number: // there is none, or it is a figure
			default:
				o[field] = Mark
			}
		}
	}
	for field, v := range o {
		switch field {
		case "annotations", "podAnnotations":
			o[field] = annotations(v)
		case "value", "values": // of metadata, by a path: what a token claims
			if _, is := v.(map[string]any); is && o["path"] != nil {
				o[field] = Mark
				continue
			}
			o[field] = value(field, v)
		default:
			o[field] = value(field, v)
		}
	}
	return o
}

// named tells whether an object has the name of something with a value; names of Envoy's that begin with a colon are
// those of a request's parts, as its path.
func named(o map[string]any) bool {
	for _, field := range []string{"name", "key", "header_name"} {
		if name, is := o[field].(string); is && !strings.HasPrefix(name, ":") {
			return true
		}
	}
	return false
}

func annotations(v any) any {
	all, is := v.(map[string]any)
	if !is {
		return value("", v)
	}
	for name, said := range all {
		domain, _, _ := strings.Cut(name, "/")
		if name == "kubectl.kubernetes.io/last-applied-configuration" {
			delete(all, name)
			continue
		}
		if slices.Contains(allowed, domain) {
			all[name] = value("", said)
		} else {
			all[name] = Mark
		}
	}
	return all
}
