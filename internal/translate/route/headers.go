// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// headerOps accumulate header changes. Envoy removes first and adds then, so a removal takes back what was set or added
// before it, and what comes after it stands.
type headerOps struct {
	add    []*corev3.HeaderValueOption
	remove []string
	host   string // Envoy changes the host by a rewrite only
}

// framing are headers of one connection, which say where a message ends or what follows it. A proxy shares its
// connections to an application between callers: with another end, one's body would be read as the request of the next.
var framing = []string{"connection", "content-length", "transfer-encoding", "upgrade"}

// change applies one filter: set, add, remove, in that order. Adding to the host or removing it makes no request that
// HTTP knows, so adding replaces it and removing does nothing.
func (o *headerOps) change(c model.HeaderChange) error {
	for _, name := range headerNames(c) {
		if !httpguts.ValidHeaderFieldName(name) {
			return fmt.Errorf("header %q can't be modified", name)
		}
	}
	for _, h := range slices.Concat(c.Set, c.Add) {
		if slices.Contains(framing, strings.ToLower(h.Name)) {
			return fmt.Errorf("header %q can't be set: only the proxy may set it", h.Name)
		}
	}
	for _, h := range c.Set {
		o.put(h, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	}
	for _, h := range c.Add {
		o.put(h, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	}
	for _, name := range c.Remove {
		if isHost(name) {
			continue
		}
		o.add = slices.DeleteFunc(o.add, func(v *corev3.HeaderValueOption) bool {
			return strings.EqualFold(v.Header.Key, name)
		})
		o.remove = append(o.remove, name)
	}
	return nil
}

// changeRequest is change for requests. What steers the proxy can't be put into one: what a route may decide is what
// its fields say.
func (o *headerOps) changeRequest(c model.HeaderChange) error {
	for _, h := range slices.Concat(c.Set, c.Add) {
		name := strings.ToLower(h.Name)
		if strings.HasPrefix(name, envoy.ControlHeaders) || name == HeaderPort {
			return fmt.Errorf("header %q can't be set: headers that begin with %s, and %s, control the proxy",
				h.Name, envoy.ControlHeaders, HeaderPort)
		}
	}
	return o.change(c)
}

func headerNames(c model.HeaderChange) []string {
	out := slices.Clone(c.Remove)
	for _, h := range slices.Concat(c.Set, c.Add) {
		out = append(out, h.Name)
	}
	return out
}

func (o *headerOps) put(h model.Header, action corev3.HeaderValueOption_HeaderAppendAction) {
	if isHost(h.Name) {
		o.host = h.Value
		return
	}
	o.add = append(o.add, &corev3.HeaderValueOption{
		Header:       &corev3.HeaderValue{Key: h.Name, Value: escape(h.Value)},
		AppendAction: action,
		// An empty value is a header without content, not an absent header.
		KeepEmptyValue: h.Value == "",
	})
}

func (o *headerOps) apply(r *routev3.Route) {
	r.RequestHeadersToAdd, r.RequestHeadersToRemove = o.add, o.remove
}

func (o *headerOps) applyResponse(r *routev3.Route) {
	r.ResponseHeadersToAdd, r.ResponseHeadersToRemove = o.add, o.remove
}

func isHost(name string) bool {
	return strings.EqualFold(name, "host") || strings.EqualFold(name, ":authority")
}

// escape keeps Envoy from reading a user's text as a format with operators, which could reveal what is the proxy's.
func escape(s string) string { return strings.ReplaceAll(s, "%", "%%") }
