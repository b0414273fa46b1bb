// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"errors"
	"fmt"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/model"
)

func (b *routeBuilder) httpFilters(in []gwv1.HTTPRouteFilter) ([]model.Filter, error) {
	var out []model.Filter
	for _, f := range in {
		var filter model.Filter
		switch {
		case f.Type == gwv1.HTTPRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			filter.RequestHeaders = headerChange(f.RequestHeaderModifier)
		case f.Type == gwv1.HTTPRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			filter.ResponseHeaders = headerChange(f.ResponseHeaderModifier)
		case f.Type == gwv1.HTTPRouteFilterRequestRedirect && f.RequestRedirect != nil:
			filter.Redirect = redirect(f.RequestRedirect)
		case f.Type == gwv1.HTTPRouteFilterURLRewrite && f.URLRewrite != nil:
			filter.Rewrite = &model.Rewrite{Hostname: deref(f.URLRewrite.Hostname), Path: pathChange(f.URLRewrite.Path)}
		case f.Type == gwv1.HTTPRouteFilterRequestMirror && f.RequestMirror != nil:
			filter.Mirror = b.mirror(f.RequestMirror)
		case f.Type == gwv1.HTTPRouteFilterCORS && f.CORS != nil:
			filter.CORS = b.cors(f.CORS)
		case f.Type == gwv1.HTTPRouteFilterExternalAuth && f.ExternalAuth != nil:
			filter.ExternalAuth = b.externalAuth(f.ExternalAuth)
		case f.Type == gwv1.HTTPRouteFilterExtensionRef && f.ExtensionRef != nil:
			filter.Extension = b.extension(*f.ExtensionRef)
		default:
			return nil, fmt.Errorf("filter %s is not supported", f.Type)
		}
		out = append(out, filter)
	}
	return out, nil
}

func (b *routeBuilder) grpcFilters(in []gwv1.GRPCRouteFilter) ([]model.Filter, error) {
	var out []model.Filter
	for _, f := range in {
		var filter model.Filter
		switch {
		case f.Type == gwv1.GRPCRouteFilterRequestHeaderModifier && f.RequestHeaderModifier != nil:
			filter.RequestHeaders = headerChange(f.RequestHeaderModifier)
		case f.Type == gwv1.GRPCRouteFilterResponseHeaderModifier && f.ResponseHeaderModifier != nil:
			filter.ResponseHeaders = headerChange(f.ResponseHeaderModifier)
		case f.Type == gwv1.GRPCRouteFilterRequestMirror && f.RequestMirror != nil:
			filter.Mirror = b.mirror(f.RequestMirror)
		case f.Type == gwv1.GRPCRouteFilterExtensionRef && f.ExtensionRef != nil:
			filter.Extension = b.extension(*f.ExtensionRef)
		default:
			return nil, fmt.Errorf("filter %s is not supported", f.Type)
		}
		out = append(out, filter)
	}
	return out, nil
}

// checkFilters refuses combinations that have no meaning. The CRDs refuse most of them too; not those of every
// version, so nothing here relies on that.
func checkFilters(filters []model.Filter, backends int) error {
	redirects, rewrites, auths, extensions := 0, 0, 0, 0
	for _, f := range filters {
		if f.Redirect != nil {
			redirects++
		}
		if f.Rewrite != nil {
			rewrites++
		}
		if f.ExternalAuth != nil {
			auths++
		}
		if f.Extension != nil {
			extensions++
		}
	}
	switch {
	case auths > 1:
		return fmt.Errorf("%w: more than one ExternalAuth", errIncompatible)
	case extensions > model.MostExtensions:
		return fmt.Errorf("%w: more than %d ExtensionRefs", errIncompatible, model.MostExtensions)
	case redirects > 1:
		return fmt.Errorf("%w: more than one RequestRedirect", errIncompatible)
	case rewrites > 1:
		return fmt.Errorf("%w: more than one URLRewrite", errIncompatible)
	case redirects > 0 && rewrites > 0:
		return fmt.Errorf("%w: RequestRedirect and URLRewrite", errIncompatible)
	case redirects > 0 && backends > 0:
		return fmt.Errorf("%w: RequestRedirect and backendRefs", errIncompatible)
	}
	return nil
}

// errIncompatible is a combination of filters that has no meaning.
var errIncompatible = errors.New("filters can't be combined")

func checkBackendFilters(filters []model.Filter) error {
	for _, f := range filters {
		if f.RequestHeaders == nil && f.ResponseHeaders == nil {
			return errors.New("a backend supports only header modifiers as filters: move the others to the rule")
		}
	}
	return nil
}

func headerChange(in *gwv1.HTTPHeaderFilter) *model.HeaderChange {
	out := &model.HeaderChange{Remove: in.Remove}
	for _, h := range in.Set {
		out.Set = append(out.Set, model.Header{Name: string(h.Name), Value: h.Value})
	}
	for _, h := range in.Add {
		out.Add = append(out.Add, model.Header{Name: string(h.Name), Value: h.Value})
	}
	return out
}

func pathChange(in *gwv1.HTTPPathModifier) *model.PathChange {
	switch {
	case in == nil:
		return nil
	case in.Type == gwv1.FullPathHTTPPathModifier:
		return &model.PathChange{Full: in.ReplaceFullPath}
	default:
		return &model.PathChange{Prefix: in.ReplacePrefixMatch}
	}
}

func redirect(in *gwv1.HTTPRequestRedirectFilter) *model.Redirect {
	out := &model.Redirect{
		Scheme: deref(in.Scheme), Hostname: deref(in.Hostname), Path: pathChange(in.Path),
		StatusCode: 302,
	}
	if in.Port != nil {
		out.Port = portNumber(*in.Port)
	}
	if in.StatusCode != nil {
		out.StatusCode = *in.StatusCode
	}
	return out
}

func (b *routeBuilder) mirror(in *gwv1.HTTPRequestMirrorFilter) *model.Mirror {
	out := &model.Mirror{Backend: b.backend(in.BackendRef, nil, b.sent), Numerator: 100, Denominator: 100}
	switch {
	case in.Fraction != nil:
		out.Numerator, out.Denominator = uint32(max(in.Fraction.Numerator, 0)), 100
		if in.Fraction.Denominator != nil {
			out.Denominator = uint32(max(*in.Fraction.Denominator, 1))
		}
	case in.Percent != nil:
		out.Numerator = uint32(max(*in.Percent, 0))
	}
	return out
}

func (b *routeBuilder) cors(in *gwv1.HTTPCORSFilter) *model.CORS {
	out := &model.CORS{
		MaxAge:           time.Duration(in.MaxAge) * time.Second,
		AllowCredentials: in.AllowCredentials != nil && *in.AllowCredentials,
	}
	for _, o := range in.AllowOrigins {
		out.AllowOrigins = append(out.AllowOrigins, string(o))
	}
	for _, m := range in.AllowMethods {
		out.AllowMethods = append(out.AllowMethods, string(m))
	}
	for _, h := range in.AllowHeaders {
		out.AllowHeaders = append(out.AllowHeaders, string(h))
	}
	for _, h := range in.ExposeHeaders {
		if h == "*" && out.AllowCredentials {
			// The API forbids it in the answer, and a browser would take it for a header's name.
			b.note(`CORS exposeHeaders "*" has no effect when credentials are allowed: list the headers`)
			continue
		}
		out.ExposeHeaders = append(out.ExposeHeaders, string(h))
	}
	return out
}
