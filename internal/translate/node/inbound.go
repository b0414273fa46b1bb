// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"fmt"
	"net/http"
	"net/netip"
	"slices"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	httpstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/set_filter_state/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Filters of the HBONE listener that the route configuration steers, by name.
const (
	filterAuthorize = "fairway.authorize"
	filterTarget    = "fairway.target"
)

// InboundRoutes says what a captured pod answers over HBONE: its authorities, each leading to a port of the pod, and its
// own address on any port. Any other authority is answered 404. The proxy's own ports are refused, so that a tunnel can
// never lead into a tunnel.
func InboundRoutes(in model.Inbound) *routev3.RouteConfiguration {
	out := &routev3.RouteConfiguration{
		Name: names.InboundRoute(in.Address),
		// The authority is an address; a port in it is part of the name.
		IgnorePortInHostMatching: false,
	}
	own := append([]netip.Addr{in.Address}, in.Others...)
	taken := map[netip.AddrPort]bool{}
	for _, a := range own {
		for _, port := range []uint16{names.PortOutbound, names.PortInbound, names.PortHBONE} {
			at := netip.AddrPortFrom(a, port)
			if taken[at] {
				continue
			}
			taken[at] = true
			out.VirtualHosts = append(out.VirtualHosts, &routev3.VirtualHost{
				Name:    at.String(),
				Domains: []string{at.String()},
				Routes:  []*routev3.Route{envoy.ConnectRefused(http.StatusNotFound)},
			})
		}
	}
	for _, a := range slices.SortedFunc(slices.Values(in.Authorities), func(a, b model.InboundAuthority) int {
		return cmp.Or(a.Authority.Compare(b.Authority), cmp.Compare(a.Target, b.Target))
	}) {
		if taken[a.Authority] {
			continue // Envoy refuses the whole configuration for a domain that occurs twice
		}
		taken[a.Authority] = true
		target := netip.AddrPortFrom(sameFamily(own, a.Authority.Addr()), a.Target)
		out.VirtualHosts = append(out.VirtualHosts, accept(a.Authority.String(), target.String(), a.Callers))
	}
	for i, a := range own {
		if !slices.Contains(own[:i], a) {
			out.VirtualHosts = append(out.VirtualHosts, anyPort(a))
		}
	}
	return out
}

// sameFamily is the pod's address to connect to for an authority. The caller's address becomes the source of that
// connection, so both must be of one family, and callers come by the family of the address that they dialled.
func sameFamily(own []netip.Addr, authority netip.Addr) netip.Addr {
	if i := slices.IndexFunc(own, func(a netip.Addr) bool { return a.Is4() == authority.Is4() }); i >= 0 {
		return own[i]
	}
	return own[0]
}

// anyPort leads the pod's own address to itself, on the port that it is asked for. A wildcard ranks below all exact names.
func anyPort(a netip.Addr) *routev3.VirtualHost {
	domain := a.String() + ":*"
	if a.Is6() {
		domain = fmt.Sprintf("[%s]:*", a)
	}
	v := accept(domain, "%REQ(:AUTHORITY)%", nil)
	// A port has one spelling. With another one, a caller would get past the exact name that guards a port.
	v.Routes[0].Match.Headers = []*routev3.HeaderMatcher{{
		Name: ":authority",
		HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: &matcherv3.StringMatcher{
			MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: ".*:[1-9][0-9]*"}},
		}},
	}}
	return v
}

// accept leads a domain to a target. Callers, if any, are the only identities that may ask.
func accept(domain, target string, callers []string) *routev3.VirtualHost {
	v := &routev3.VirtualHost{
		Name:    domain,
		Domains: []string{domain},
		Routes:  []*routev3.Route{envoy.ConnectRoute(ClusterDirect)},
		TypedPerFilterConfig: map[string]*anypb.Any{
			filterTarget: envoy.Any(&httpstatev3.Config{OnRequestHeaders: []*statev3.FilterStateValue{
				envoy.FilterState(envoy.FilterStateOriginalDst, "", target, envoy.SharedNot),
			}}),
		},
	}
	if len(callers) > 0 {
		v.TypedPerFilterConfig[filterAuthorize] = envoy.Any(&rbacv3.RBACPerRoute{Rbac: &rbacv3.RBAC{Rules: onlyFrom(callers)}})
	}
	return v
}

// onlyFrom allows these SPIFFE IDs and nobody else.
func onlyFrom(callers []string) *rbacconfigv3.RBAC {
	p := &rbacconfigv3.Policy{
		Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
	}
	for _, id := range callers {
		p.Principals = append(p.Principals, &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Authenticated_{
			Authenticated: &rbacconfigv3.Principal_Authenticated{PrincipalName: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Exact{Exact: id},
			}},
		}})
	}
	return &rbacconfigv3.RBAC{
		Action:   rbacconfigv3.RBAC_ALLOW,
		Policies: map[string]*rbacconfigv3.Policy{"callers": p},
	}
}
