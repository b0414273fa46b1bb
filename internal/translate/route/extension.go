// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	_ "embed"
	"errors"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extprocv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_proc/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"golang.org/x/net/http/httpguts"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// An extension is what one of the listener's filters becomes on a route, with its whole configuration in the route. It
// has a request wait, so each has a filter of its own; see become.

// filterExtension is the filter of a rule's nth extension.
func filterExtension(n int) string { return fmt.Sprintf("fairway.extension_%d", n) }

// extend sends the requests of a route through extensions, whose names are those of a namespace.
func extend(r *routev3.Route, namespace string, extensions []model.Extension) error {
	if len(extensions) > model.MostExtensions {
		return fmt.Errorf("a rule can have %d extensions at most", model.MostExtensions)
	}
	for n, e := range extensions {
		filters, err := extensionFilters(namespace, e)
		if err != nil {
			return fmt.Errorf("extension %s: %w", e.Name, err)
		}
		if err := configure(r, filterExtension(n), become(filters...)); err != nil {
			return err
		}
	}
	return nil
}

func extensionFilters(namespace string, e model.Extension) ([]*corev3.TypedExtensionConfig, error) {
	switch {
	case e.Lua != nil:
		filter := script(namespace+"/"+e.Name, e.Lua.Source)
		return []*corev3.TypedExtensionConfig{envoy.Extension("envoy.filters.http.lua", filter)}, envoy.Check(filter)
	case e.Processor != nil:
		filter, err := processor(*e.Processor)
		if err != nil {
			return nil, err
		}
		return framed(*e.Processor, envoy.Extension("envoy.filters.http.ext_proc", filter)), envoy.Check(filter)
	case e.Wasm != nil:
		return moduleFilters(namespace+"/"+e.Name, *e.Wasm)
	}
	return nil, errors.New("it says nothing")
}

//go:embed sandbox.lua
var sandbox string

// script runs Lua in the sandbox.
func script(name, source string) *luav3.Lua {
	return lua("local source, name = " + luaString(source) + ", " + luaString(name) + "\n" + sandbox)
}

// lua runs a script. The route stays the one that was chosen, whatever the script changes.
func lua(source string) *luav3.Lua {
	return &luav3.Lua{
		DefaultSourceCode: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: source}},
		ClearRouteCache:   envoy.Bool(false),
	}
}

// luaString is a text in Lua, whatever is in it: nothing can end it.
func luaString(s string) string {
	var b strings.Builder
	b.Grow(len(s) + len(s)/8)
	b.WriteByte('"')
	for n := range len(s) {
		if c := s[n]; c < ' ' || c > '~' || c == '"' || c == '\\' {
			fmt.Fprintf(&b, `\%03d`, c)
		} else {
			b.WriteByte(c)
		}
	}
	b.WriteByte('"')
	return b.String()
}

// processor is asked by Envoy's ext_proc. What it says of metadata, of routes and of modes is not listened to.
func processor(p model.Processor) (*extprocv3.ExternalProcessor, error) {
	for _, name := range p.Changes {
		if !httpguts.ValidHeaderFieldName(name) {
			return nil, fmt.Errorf("%q is not the name of a header", name)
		}
	}
	return &extprocv3.ExternalProcessor{
		GrpcService:      grpcBy(clusterOf(p.Service, p.TLS), p.Service),
		FailureModeAllow: p.Open,
		StatusOnError:    &typev3.HttpStatus{Code: http.StatusServiceUnavailable},
		MessageTimeout:   envoy.Duration(positive(&p.Timeout)),
		ProcessingMode: &extprocv3.ProcessingMode{
			RequestHeaderMode: headerMode(p.Request.Headers), ResponseHeaderMode: headerMode(p.Response.Headers),
			RequestBodyMode: bodyMode(p.Request.Body), ResponseBodyMode: bodyMode(p.Response.Body),
			RequestTrailerMode: headerMode(p.Request.Trailers), ResponseTrailerMode: headerMode(p.Response.Trailers),
		},
		// By which the service knows the caller; no header can be taken for it.
		RequestAttributes: []string{"connection.uri_san_peer_certificate"},
		ForwardRules: &extprocv3.HeaderForwardingRules{DisallowedHeaders: &matcherv3.ListStringMatcher{
			Patterns: []*matcherv3.StringMatcher{exact(HeaderPort)},
		}},
		MutationRules:    extensionsMayChange(p.Changes),
		RouteCacheAction: extprocv3.ExternalProcessor_RETAIN,
	}, nil
}

// framed takes the lengths of bodies that a processor may change out of their messages. Envoy insists on a length that
// fits, but takes any from a service that changes no body; so no service may have a say in it. What is behind the
// processor in its chain sees answers before it, and no requests.
func framed(p model.Processor, filter *corev3.TypedExtensionConfig) []*corev3.TypedExtensionConfig {
	remove := []*mutationrulesv3.HeaderMutation{{
		Action: &mutationrulesv3.HeaderMutation_Remove{Remove: "content-length"},
	}}
	chain := []*corev3.TypedExtensionConfig{filter}
	if p.Request.Body != model.BodyNone {
		chain = slices.Insert(chain, 0, envoy.Extension("envoy.filters.http.header_mutation",
			&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{RequestMutations: remove}}))
	}
	if p.Response.Body != model.BodyNone {
		chain = append(chain, envoy.Extension("envoy.filters.http.header_mutation",
			&headermutationv3.HeaderMutation{Mutations: &headermutationv3.Mutations{ResponseMutations: remove}}))
	}
	return chain
}

func headerMode(shown bool) extprocv3.ProcessingMode_HeaderSendMode {
	if shown {
		return extprocv3.ProcessingMode_SEND
	}
	return extprocv3.ProcessingMode_SKIP
}

func bodyMode(m model.BodyMode) extprocv3.ProcessingMode_BodySendMode {
	switch m {
	case model.BodyBuffered:
		return extprocv3.ProcessingMode_BUFFERED
	case model.BodyStreamed:
		return extprocv3.ProcessingMode_STREAMED
	case model.BodyNone:
	}
	return extprocv3.ProcessingMode_NONE
}

// notForExtensions are headers that say who calls, where a message ends, or what the proxy is to do: those of the
// sandbox. Some applications take an underscore for a hyphen.
const notForExtensions = `host|x[-_]forwarded[-_]client[-_]cert|x[-_]envoy[-_].*|x[-_]fairway[-_].*|connection|` +
	`content[-_]length|keep[-_]alive|proxy[-_]connection|te|trailer|transfer[-_]encoding|upgrade`

func extensionsMayChange(only []string) *mutationrulesv3.HeaderMutationRules {
	out := &mutationrulesv3.HeaderMutationRules{
		DisallowSystem:     envoy.Bool(true),
		DisallowExpression: &matcherv3.RegexMatcher{Regex: `(?i)` + notForExtensions},
	}
	if only != nil {
		out.DisallowAll = envoy.Bool(true)
		out.AllowExpression = &matcherv3.RegexMatcher{Regex: `(?i)` + anyOf(only, regexp.QuoteMeta)}
	}
	return out
}
