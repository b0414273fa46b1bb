// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// asks is what a route asks for: all of it that decides, with what others ask for, which attachments it gets. What its
// rules say is no part of it, so an edit of these concerns no other route.
type asks struct {
	ref     model.ObjectRef
	created time.Time
	// services are its parents; attachments those of all of them, sorted.
	services    []cluster.Key
	attachments []model.Attachment
}

// asksFor is nil where there is no route.
func (i *Ingest) asksFor(c *memo.Ctx, ref model.ObjectRef) *asks {
	r := i.Route.Get(c, ref)
	if r == nil {
		return nil
	}
	out := &asks{ref: ref, created: r.created}
	for _, p := range r.parents {
		if len(p.attachments) > 0 {
			out.services = append(out.services, p.service)
			out.attachments = slices.Concat(out.attachments, p.attachments)
		}
	}
	slices.SortFunc(out.attachments, model.Attachment.Compare)
	out.attachments = slices.Compact(out.attachments)
	return out
}

func (a *asks) attachesTo(at model.Attachment) bool {
	_, found := slices.BinarySearchFunc(a.attachments, at, model.Attachment.Compare)
	return found
}

// claims says which routes have an attachment.
type claims struct {
	protocol model.Protocol
	routes   []model.ObjectRef // that have it, the one with precedence first
	// effective are those of them that say what becomes of requests; the others cost too much.
	effective []model.ObjectRef
	// lost says, for routes that ask for it, why they don't get it.
	lost map[model.ObjectRef]Verdict
}

// defineClaims has what many read of the claims stand for itself: it hardly ever changes when these do.
func (i *Ingest) defineClaims(g *memo.Graph) {
	i.asksOf = memo.Define(g, "asks", reflectEqual[*asks], i.asksFor).Steady()
	i.attached = memo.Define(g, "attached", slices.Equal[[]attached], i.attachedTo)
	i.routable = memo.Define(g, "routable", slices.Equal[[]model.Attachment], i.routablePorts)
	i.claims = memo.Define(g, "claims", reflectEqual[*claims], i.claim)
	i.protocolOf = memo.Define(g, "protocol", same[model.Protocol], func(c *memo.Ctx, at model.Attachment) model.Protocol {
		return i.claims.Get(c, at).protocol
	}).Steady()
	i.lost = memo.Define(g, "lost", maps.Equal[map[model.ObjectRef]Verdict],
		func(c *memo.Ctx, at model.Attachment) map[model.ObjectRef]Verdict { return i.claims.Get(c, at).lost }).Steady()
	i.callersOf = memo.Define(g, "callers", slices.Equal[[]string], i.callers).Steady()
	i.matchesOf = memo.Define(g, "matches", slices.Equal[[]ruleMatch], i.matchesOfRoute).Steady()
	i.shadowed = memo.Define(g, "shadowed", reflectEqual[map[model.ObjectRef][]string], i.shadows).Steady()
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
			out.routes = append(out.routes, r.ref)
			if !r.over {
				out.effective = append(out.effective, r.ref)
			}
		}
	}
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

// shadows finds rules with the very match that a route with precedence has already: for routes that have an
// attachment, what to say of these.
func (i *Ingest) shadows(c *memo.Ctx, at model.Attachment) map[model.ObjectRef][]string {
	type place struct{ namespace, match string }
	first := map[place]model.ObjectRef{}
	out := map[model.ObjectRef][]string{}
	for _, ref := range i.claims.Get(c, at).effective {
		for _, match := range i.matchesOf.Get(c, ref) {
			at := place{ref.Namespace, match.key}
			winner, taken := first[at]
			if !taken {
				first[at] = ref
			}
			if !taken || winner == ref {
				continue
			}
			text := fmt.Sprintf("a match of rule %s is also in %s %s, which takes precedence", match.rule, winner.Kind,
				winner.Name)
			if !slices.Contains(out[ref], text) {
				out[ref] = append(out[ref], text)
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

// ruleMatch is what tells whether two rules take the same requests: see matchKey.
type ruleMatch struct{ key, rule string }

// matchesOfRoute are those of its rules.
func (i *Ingest) matchesOfRoute(c *memo.Ctx, ref model.ObjectRef) (out []ruleMatch) {
	if r := i.Route.Get(c, ref); r != nil {
		for _, rule := range r.Rules {
			out = append(out, ruleMatch{matchKey(rule.Match), ruleLabel(rule)})
		}
	}
	return out
}

// attached is a route with a Service as parent.
type attached struct {
	*asks
	over bool // it costs too much
	// crowded: too many other namespaces have routes for the Service already.
	crowded bool
}

// attachedTo lists the routes of a Service, the one with precedence first. It is done once for all of its ports.
func (i *Ingest) attachedTo(c *memo.Ctx, service cluster.Key) []attached {
	var out []attached
	for _, ref := range i.routesOf(c, service) {
		if a := i.asksOf.Get(c, ref); a != nil {
			_, over := i.over(c, ref, service.Namespace)
			out = append(out, attached{asks: a, over: over})
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
	out := &model.RouteTable{
		Attachment: at, Protocol: claims.protocol, TLS: i.SpeaksTLS.Get(c, at.Port), Guards: i.OwnGuards.Get(c, at),
	}
	byNamespace := map[string][]model.ObjectRef{}
	for _, ref := range claims.routes {
		byNamespace[ref.Namespace] = nil // there is a route, so what none matches is answered 404
	}
	for _, ref := range claims.effective {
		byNamespace[ref.Namespace] = append(byNamespace[ref.Namespace], ref)
	}
	for ns, routes := range byNamespace {
		rules := i.orderedRules(c, routes, at)
		if ns == at.Namespace() {
			out.Default = rules
		} else {
			out.Callers = append(out.Callers, model.CallerRules{Namespace: ns, Rules: rules})
		}
	}
	slices.SortFunc(out.Callers, func(a, b model.CallerRules) int { return strings.Compare(a.Namespace, b.Namespace) })
	if out.Protocol.HTTP() {
		out.Session = i.session(c, at.Port)
		if p := i.traffic.InForce.Get(c, at); p != nil {
			out.Requests = p.Content.Requests
			out.Requests.GlobalLimit = i.reserving(c, out, i.askableLimit(c, at.Port, out.Requests.GlobalLimit))
		}
	}
	return out
}

// sameTable tells whether two tables are the same. Rules that are the same are the same pointers, for each is made
// once.
func sameTable(a, b *model.RouteTable) bool {
	sameRules := func(a, b []*model.Rule) bool { return (a == nil) == (b == nil) && slices.Equal(a, b) }
	if !sameRules(a.Default, b.Default) || !slices.EqualFunc(a.Callers, b.Callers, func(a, b model.CallerRules) bool {
		return a.Namespace == b.Namespace && sameRules(a.Rules, b.Rules)
	}) {
		return false
	}
	restA, restB := *a, *b
	restA.Default, restA.Callers, restB.Default, restB.Callers = nil, nil, nil, nil
	return reflectEqual(restA, restB)
}

func (i *Ingest) upstream(c *memo.Ctx, port model.ServicePort) model.Upstream {
	out := model.Upstream{
		ServicePort: port, Protocol: i.protocolOf.Get(c, model.Attachment{Port: port}),
		Identities: i.identitiesOf.Get(c, port),
	}
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
