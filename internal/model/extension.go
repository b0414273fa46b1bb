// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import "time"

// MostExtensions is how many extensions a rule may have.
const MostExtensions = 4

// Extension is what a rule sends its requests and their answers through, as an HTTPExtension has it. Exactly one of
// Lua, Processor and Wasm is set, unless it is Invalid.
type Extension struct {
	// Name of the HTTPExtension, in the namespace of the route.
	Name string
	// Invalid: it can't be carried out, so requests are answered with an error.
	Invalid bool
	// Refused: it may not run in the waypoint, or guards don't let the waypoint ask, which is to the same effect. It is no
	// part of what the rule's author says, by which rules are told apart.
	Refused   bool `json:"-"`
	Lua       *Lua
	Processor *Processor
	Wasm      *Wasm
}

// Unusable tells that requests can't be sent through it.
func (e Extension) Unusable() bool { return e.Invalid || e.Refused }

// Lua is a script.
type Lua struct{ Source string }

// Wasm is a module that speaks Proxy-Wasm.
type Wasm struct {
	// Code is what proxies run. Digest tells it from others, so it stands for it where rules are compared.
	Code   []byte `json:"-"`
	Digest string
	// Marked: it changes names.ModuleMark in what it is shown, by which proxies know whether it runs.
	Marked bool
	// Config is what it is given, and Root the root context that is meant.
	Config, Root string
	// Request and Response are what it is shown; no body is shown as a whole, and no trailers are.
	Request, Response Processed
}

// Processor is a Service that speaks Envoy's protocol of external processing.
type Processor struct {
	Service ServicePort
	// TLS: it is asked in TLS; see Upstream.
	TLS bool
	// Timeout of one answer.
	Timeout time.Duration
	// Open: what it doesn't answer goes on as it is.
	Open bool
	// Request and Response are what it is shown.
	Request, Response Processed
	// Changes are the names of the headers that it may change, in lower case; nil: all but those that no extension may.
	Changes []string
}

// Processed is what a Processor or a module is shown of a request, or of an answer.
type Processed struct {
	Headers, Trailers bool
	Body              BodyMode
}

// BodyMode is how a body is shown.
type BodyMode string

// Ways to show a body.
const (
	BodyNone     BodyMode = ""
	BodyBuffered BodyMode = "Buffered" // as a whole
	BodyStreamed BodyMode = "Streamed" // piece by piece
)

// Extensions are what the rule sends requests through, in order.
func (r Rule) Extensions() (out []Extension) {
	for _, f := range r.Filters {
		if f.Extension != nil {
			out = append(out, *f.Extension)
		}
	}
	return out
}
