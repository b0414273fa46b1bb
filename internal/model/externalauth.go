// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"reflect"
	"slices"
	"time"
)

// ExternalAuth asks a service about each request before it goes on, as of GEP-1494.
type ExternalAuth struct {
	// Service is asked, unless it is Invalid: then it is as if it never answered.
	Service ServicePort
	Invalid bool
	// TLS: it is asked in TLS; see Upstream.
	TLS bool
	// Refused: guards of the Service don't let the waypoint ask, which is to the same effect. It is no part of what the
	// rule's author says, by which rules are told apart.
	Refused bool `json:"-"`
	// GRPC: in Envoy's own protocol; else by a request like the one it is about, to which 200 means yes.
	GRPC bool
	// Path goes before the request's own; of HTTP only.
	Path string
	// Shown are the headers that the service sees: of gRPC all of them if none is named, of HTTP those that it always
	// sees and these.
	Shown []string
	// Taken are the headers of the service's answer that go on with the request; all if none is named. Of HTTP only.
	Taken []string
	// MaxBody is how many bytes the body of a request may have, all of which the service sees; zero: it sees none.
	MaxBody uint32
	Timeout time.Duration
	// Open: what it doesn't answer passes.
	Open bool
}

// Unasked tells that it can't be asked.
func (a ExternalAuth) Unasked() bool { return a.Invalid || a.Refused }

// MostShown is how long a body may be of which all that are asked see the whole; zero: nobody sees any.
func MostShown(asked ...ExternalAuth) (most uint32) {
	for _, a := range asked {
		if a.MaxBody > 0 && (most == 0 || a.MaxBody < most) {
			most = a.MaxBody
		}
	}
	return most
}

// ExternalAuth is what the rule itself has asked; nil: nobody.
func (r Rule) ExternalAuth() *ExternalAuth {
	for _, f := range r.Filters {
		if f.ExternalAuth != nil {
			return f.ExternalAuth
		}
	}
	return nil
}

// Asked are the services that must let requests pass, for all of the guards to do, each once.
func Asked(guards []Guard) (out []ExternalAuth) {
	for _, g := range guards {
		for _, a := range g.Asked {
			if !slices.ContainsFunc(out, func(have ExternalAuth) bool { return reflect.DeepEqual(have, a) }) {
				out = append(out, a)
			}
		}
	}
	return out
}

// WhomToAsk is the service whose word all of the guards go by; nil: nobody is asked, and that is that, unless nobody is
// true: then nothing passes, for one that can't be asked would have to be, or several.
func WhomToAsk(guards []Guard) (who *ExternalAuth, nobody bool) {
	all := slices.DeleteFunc(Asked(guards), func(a ExternalAuth) bool { return a.Open && a.Unasked() })
	switch {
	case len(all) == 1 && !all[0].Unasked():
		return &all[0], false
	case len(all) > 0:
		return nil, true
	}
	return nil, false
}
