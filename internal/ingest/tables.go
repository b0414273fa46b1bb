// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// claims says which routes have an attachment.
type claims struct {
	protocol model.Protocol
	routes   []*Route // that have it, the one with precedence first
	// effective are those of them that say what becomes of requests; the others cost too much.
	effective []*Route
	// lost says, for routes that ask for it, why they don't get it.
	lost map[model.ObjectRef]Verdict
	// shadowed says, for routes that have it, which of their rules others go before for all requests.
	shadowed map[model.ObjectRef][]string
}

// claim decides between the routes that ask for an attachment. What a port speaks is its owner's to say: by
// declaration, or else by a route in the Service's own namespace, or a policy that decides on requests. A route of
// another namespace never changes how the port treats everybody else's connections.
func (i *Ingest) claim(c *memo.Ctx, at model.Attachment) *claims {
	out := &claims{protocol: model.ProtocolTCP, lost: map[model.ObjectRef]Verdict{}}
	declared, ok := i.declared(c, at.Port)
	if !ok {
		return out
	}
	asking := i.asking(c, at)
	grpc := map[string]string{} // by namespace, the GRPCRoute with precedence
	produced := false
	for _, r := range asking {
		produced = produced || r.ref.Namespace == at.Namespace()
		if r.ref.Kind == kindGRPCRoute && grpc[r.ref.Namespace] == "" {
			grpc[r.ref.Namespace] = r.ref.Name
		}
	}
	switch {
	case grpc[at.Namespace()] != "":
		out.protocol = model.ProtocolHTTP2
	case declared != model.ProtocolUndeclared:
		out.protocol = declared
	case produced, i.decides(c, at.Port):
		out.protocol = model.ProtocolHTTP
	}
	for _, r := range asking {
		switch winner := grpc[r.ref.Namespace]; {
		case r.crowded:
			out.lost[r.ref] = Verdict{Reason: v1alpha1.RouteReasonOverBudget, Message: fmt.Sprintf(
				"routes of %d other namespaces, which is the limit, are already attached to Service %s: create the route in "+
					"namespace %s instead",
				MostConsumersOfService, at.Port.ServiceName(), at.Port.Namespace)}
		case !out.protocol.HTTP():
			out.lost[r.ref] = Verdict{
				Reason: string(gwv1.RouteReasonUnsupportedProtocol),
				Message: "the port declares no protocol, and a route of another namespace can't make it HTTP for all callers " +
					"(the Service's owner can, with appProtocol or a route)",
			}
		case winner != "" && r.ref.Kind != kindGRPCRoute:
			out.lost[r.ref] = Verdict{
				Reason: v1alpha1.RouteReasonConflicted,
				Message: "GRPCRoute " + winner +
					" is attached to it, and a GRPCRoute takes precedence over an HTTPRoute (GEP-1294)",
			}
		default:
			out.routes = append(out.routes, r.Route)
			if !r.over {
				out.effective = append(out.effective, r.Route)
			}
		}
	}
	out.shadowed = shadows(out.effective)
	return out
}

// declared is what a Service says that one of its ports speaks; false if there is no such port.
func (i *Ingest) declared(c *memo.Ctx, port model.ServicePort) (model.Protocol, bool) {
	svc := i.Service.Get(c, port.ServiceName())
	if svc == nil {
		return "", false
	}
	p, ok := svc.Port(port.Port)
	return p.Protocol, ok
}

// shadows finds rules with the very match that a route with precedence has already.
func shadows(routes []*Route) map[model.ObjectRef][]string {
	type place struct{ namespace, match string }
	first := map[place]model.ObjectRef{}
	out := map[model.ObjectRef][]string{}
	for _, r := range routes {
		for n, rule := range r.Rules {
			at := place{r.ref.Namespace, r.matches[n]}
			winner, taken := first[at]
			if !taken {
				first[at] = r.ref
			}
			if !taken || winner == r.ref {
				continue
			}
			text := fmt.Sprintf("a match of rule %s is also in %s %s, which takes precedence", ruleLabel(rule), winner.Kind,
				winner.Name)
			if !slices.Contains(out[r.ref], text) {
				out[r.ref] = append(out[r.ref], text)
			}
		}
	}
	return out
}

// matchKey is the same for matches that take the same requests.
func matchKey(m model.Match) string {
	var path model.StringMatch
	if m.Path != nil {
		path = *m.Path
	}
	named := func(in []model.NamedMatch) []model.NamedMatch {
		return slices.SortedFunc(slices.Values(in), func(a, b model.NamedMatch) int { return cmp.Compare(a.Name, b.Name) })
	}
	return fmt.Sprintf("%q %q %q %q %q %q %q", path, m.Method, m.GRPCService, m.GRPCMethod, m.GRPCType,
		named(m.Headers), named(m.Query))
}

// attached is a route with a Service as parent.
type attached struct {
	*Route
	over bool // it costs too much
	// crowded: too many other namespaces have routes for the Service already.
	crowded bool
}

// attachedTo lists the routes of a Service, the one with precedence first. It is done once for all of its ports.
func (i *Ingest) attachedTo(c *memo.Ctx, service cluster.Key) []attached {
	var out []attached
	for _, ref := range i.routesOf(c, service) {
		if r := i.Route.Get(c, ref); r != nil {
			_, over := i.over(c, ref, service.Namespace)
			out = append(out, attached{Route: r, over: over})
		}
	}
	slices.SortFunc(out, func(a, b attached) int { return policy.Compare(a.created, a.ref, b.created, b.ref) })
	consumers := map[string]bool{}
	for n, r := range out {
		if r.ref.Namespace != service.Namespace && !consumers[r.ref.Namespace] {
			if out[n].crowded = len(consumers) == MostConsumersOfService; !out[n].crowded {
				consumers[r.ref.Namespace] = true
			}
		}
	}
	return out
}

// asking lists the routes that ask for an attachment, the one with precedence first.
func (i *Ingest) asking(c *memo.Ctx, at model.Attachment) []attached {
	all := i.attached.Get(c, at.Port.ServiceName())
	return slices.DeleteFunc(slices.Clone(all), func(r attached) bool { return !r.attachesTo(at) })
}

// table puts together what every route does with the requests to an attachment, in order of precedence.
func (i *Ingest) table(c *memo.Ctx, at model.Attachment) *model.RouteTable {
	claims := i.claims.Get(c, at)
	out := &model.RouteTable{Attachment: at, Protocol: claims.protocol, TLS: i.SpeaksTLS.Get(c, at.Port)}
	if p := i.traffic.InForce.Get(c, at); p != nil && out.Protocol.HTTP() {
		out.Requests = p.Content.Requests
	}
	if out.Protocol.HTTP() {
		out.Session = i.session(c, at.Port)
	}
	byNamespace := map[string][]*Route{}
	for _, r := range claims.routes {
		byNamespace[r.ref.Namespace] = nil // there is a route, so what none matches is answered 404
	}
	for _, r := range claims.effective {
		byNamespace[r.ref.Namespace] = append(byNamespace[r.ref.Namespace], r)
	}
	for ns, routes := range byNamespace {
		rules := i.withSessions(c, orderedRules(routes))
		if ns == at.Namespace() {
			out.Default = rules
		} else {
			out.Callers = append(out.Callers, model.CallerRules{Namespace: ns, Rules: rules})
		}
	}
	slices.SortFunc(out.Callers, func(a, b model.CallerRules) int { return strings.Compare(a.Namespace, b.Namespace) })
	return out
}

func (i *Ingest) upstream(c *memo.Ctx, port model.ServicePort) model.Upstream {
	claims := i.claims.Get(c, model.Attachment{Port: port})
	out := model.Upstream{ServicePort: port, Protocol: claims.protocol, Identities: i.identitiesOf.Get(c, port)}
	if svc := i.Service.Get(c, port.ServiceName()); svc != nil {
		out.ClientIP = svc.ClientIP
	}
	if p := i.traffic.InForce.Get(c, model.Attachment{Port: port}); p != nil {
		out.Sending = p.Content.Sending
	}
	if p := i.backendTrafficOf.InForce.Get(c, model.Attachment{Port: port}); p != nil && out.Protocol.HTTP() {
		out.Retries = p.Content.Retries
	}
	out.TLS = i.tlsOf(c, port)
	return out
}

// orderedRules flattens the routes of one namespace.
func orderedRules(routes []*Route) []model.Rule {
	rules := []model.Rule{} // not nil: routes with no rules at all match nothing
	for _, r := range routes {
		rules = append(rules, r.Rules...)
	}
	// Stable: equal matches keep the order of their routes (oldest first, then by name) and of their rules.
	slices.SortStableFunc(rules, func(a, b model.Rule) int { return compareMatches(a.Match, b.Match) })
	return rules
}

// compareMatches puts the more specific match first: HTTPRouteRule.matches and GRPCRouteRule.matches of the Gateway
// API say how.
func compareMatches(a, b model.Match) int {
	return cmp.Or(
		cmp.Compare(pathRank(b.Path), pathRank(a.Path)),
		cmp.Compare(pathLength(b.Path), pathLength(a.Path)),
		cmp.Compare(len(b.GRPCService), len(a.GRPCService)),
		cmp.Compare(len(b.GRPCMethod), len(a.GRPCMethod)),
		cmp.Compare(boolRank(b.Method != ""), boolRank(a.Method != "")),
		cmp.Compare(len(b.Headers), len(a.Headers)),
		cmp.Compare(len(b.Query), len(a.Query)),
	)
}

func pathRank(p *model.StringMatch) int {
	switch {
	case p == nil:
		return 0
	case p.Type == model.MatchExact:
		return 3
	case p.Type == model.MatchRegex:
		return 2 // between exact and prefix: the API leaves it to the implementation
	}
	return 1
}

func pathLength(p *model.StringMatch) int {
	if p == nil {
		return 0
	}
	return len(p.Value)
}

func boolRank(b bool) int {
	if b {
		return 1
	}
	return 0
}
