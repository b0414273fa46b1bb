// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"maps"
	"net/http"
	"regexp"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/model"
)

// Outcome is what a table makes of a request. It is read of the configuration that the waypoint gets, so it can't say
// anything else than that.
type Outcome struct {
	// Rule that takes the request; nil where the Service itself does, or nobody.
	Rule *model.Rule
	// Status of the answer that the waypoint gives by itself, and what it says; 0: the request goes on.
	Status int
	Text   string
	// CORS, ExternalAuth and Extensions are those of the rule's filters that see the request before, also where it is
	// answered then.
	CORS, ExternalAuth bool
	Extensions         int

	asked Asked
	route *routev3.Route
}

// OutcomeOf finds the rule of a table that takes a request, as it arrived.
func OutcomeOf(trustDomain string, t model.RouteTable, q Asked) Outcome {
	if q.Says(headerForwardedProto) == "" {
		return Outcome{Status: http.StatusNotFound, Text: "header x-forwarded-proto says nothing"}
	}
	config, _ := Configuration(trustDomain, t)
	for _, r := range config.GetVirtualHosts()[0].GetRoutes() {
		if q.matches(r.GetMatch()) {
			return q.outcome(t, r)
		}
	}
	return Outcome{Status: http.StatusNotFound, Text: "no rule of a route matches"}
}

func (q Asked) outcome(t model.RouteTable, r *routev3.Route) Outcome {
	out := Outcome{Rule: ruleNamed(t, r.GetName()), asked: q, route: r}
	filters := r.GetTypedPerFilterConfig()
	out.CORS = filters[filterCORS] != nil && r.GetRoute() != nil // Envoy's filter leaves other answers alone
	out.ExternalAuth = filters[filterAuth] != nil
	for filters[filterExtension(out.Extensions)] != nil {
		out.Extensions++
	}
	switch {
	case r.GetDirectResponse() != nil:
		out.Status = int(r.GetDirectResponse().GetStatus())
		out.Text = strings.TrimSuffix(r.GetDirectResponse().GetBody().GetInlineString(), "\n")
	case r.GetRedirect() != nil:
		out.Status = redirectStatus(r.GetRedirect().GetResponseCode())
		out.Text = "it redirects"
	}
	return out
}

func redirectStatus(code routev3.RedirectAction_RedirectResponseCode) int {
	for status, c := range redirectCodes {
		if c == code && status != 0 {
			return status
		}
	}
	return 0
}

// Unmatched says that nothing of the table is for the request, not even what its owner asks for of all requests.
func (o Outcome) Unmatched() bool { return o.route == nil }

// Leaves is the request as it goes to the rule's nth backend: with what the rule and the backend change of it.
func (o Outcome) Leaves(nth int) Asked {
	out, action := o.asked, o.route.GetRoute()
	out.Headers = maps.Clone(out.Headers)
	if out.Headers == nil {
		out.Headers = http.Header{}
	}
	host := action.GetHostRewriteLiteral()
	if all := action.GetWeightedClusters().GetClusters(); all != nil {
		// The one's own changes come before the rule's.
		w := all[o.live(nth)]
		out.change(w.GetRequestHeadersToRemove(), w.GetRequestHeadersToAdd())
		host = w.GetHostRewriteLiteral()
	}
	out.change(o.route.GetRequestHeadersToRemove(), o.route.GetRequestHeadersToAdd())
	if host != "" {
		out.Host = host
	}
	for _, name := range append(model.OtherSpellings(headerClientCert), headerClientCert) {
		out.remove(name)
	}
	out.Headers[headerClientCert] = []string{"URI=" + out.Identity}
	out.Path = o.path()
	return out
}

// live is the place of the rule's nth backend among those that have a weight.
func (o Outcome) live(nth int) (n int) {
	for _, b := range o.Rule.Backends[:nth] {
		if b.Weight > 0 {
			n++
		}
	}
	return n
}

// change headers as Envoy does, which removes first.
func (q *Asked) change(remove []string, add []*corev3.HeaderValueOption) {
	for _, name := range remove {
		q.remove(name)
	}
	for _, h := range add {
		name, value := h.GetHeader().GetKey(), strings.ReplaceAll(h.GetHeader().GetValue(), "%%", "%")
		if h.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			q.remove(name)
		}
		q.Headers[strings.ToLower(name)] = append(slices.Clip(q.Headers[strings.ToLower(name)]), value)
	}
}

func (q *Asked) remove(name string) {
	maps.DeleteFunc(q.Headers, func(n string, _ []string) bool { return strings.EqualFold(n, name) })
}

// path of the request after the rule's rewrite, which leaves the query alone.
func (o Outcome) path() string {
	path := o.asked.plain()
	rest := o.asked.Path[len(path):]
	action, match := o.route.GetRoute(), o.route.GetMatch()
	switch {
	case action.GetPathRewrite() != "":
		path = strings.ReplaceAll(action.GetPathRewrite(), "%%", "%")
	case action.GetPrefixRewrite() != "":
		path = action.GetPrefixRewrite() + path[len(match.GetPrefix())+len(match.GetPathSeparatedPrefix()):]
	case action.GetRegexRewrite() != nil:
		if re, err := regexp.Compile(goSyntax(action.GetRegexRewrite().GetPattern().GetRegex())); err == nil {
			path = re.ReplaceAllLiteralString(path, action.GetRegexRewrite().GetSubstitution())
		}
	}
	return path + rest
}
