// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Report is what the status of a route, a policy or an XBackend is to say, but for what only the proxies know. The
// ancestors of a policy are what a route's parents are.
type Report struct {
	Ref model.ObjectRef
	// UID tells the object from a later one of the same name.
	UID        types.UID
	Generation int64
	// Parents are empty while there is no Mesh: then the mesh has nothing to say.
	Parents []ParentReport
}

// ParentReport is about one parentRef.
type ParentReport struct {
	Ref gwv1.ParentReference
	// Conditions Accepted, ResolvedRefs and, where it applies, PartiallyInvalid; without times.
	Conditions []metav1.Condition
	// Attachments that the route has.
	Attachments []model.Attachment
	// Waypoint whose proxies must acknowledge the route tables of Attachments before the route is Programmed.
	Waypoint cluster.Key
	// Clusters that they must have acknowledged besides, by name.
	Clusters []string
	// Backends of the rules, by the names of their clusters, sorted: the proxies need these.
	Backends []string
	// Dialled are the addresses of Attachments: callers' node proxies must have acknowledged that these lead to the
	// waypoint.
	Dialled []netip.AddrPort
	// Pending: they don't lead there yet, for the waypoint has not served for the first time.
	Pending bool
	// Stalled: nothing makes the waypoint work by itself.
	Stalled bool
	// Foreign: somebody else may be responsible for the parent; what another controller says of it goes before.
	Foreign bool
	// Unprogrammed says why no proxy will serve the route; nil where one should.
	Unprogrammed *Verdict
	// Enforcement is of AuthorizationPolicies, and nil for all else: their condition is Enforced, not Programmed.
	Enforcement *Enforcement
}

func (i *Ingest) report(c *memo.Ctx, ref model.ObjectRef) *Report {
	if of, ok := i.policyReports[ref.Kind]; ok {
		return of(c, cluster.Key{Namespace: ref.Namespace, Name: ref.Name})
	}
	r := i.Route.Get(c, ref)
	if r == nil {
		return nil
	}
	out := &Report{Ref: ref, UID: r.uid, Generation: r.generation}
	if !i.Settings.Get(c, struct{}{}).present {
		return out
	}
	for _, p := range r.parents {
		out.Parents = append(out.Parents, i.parentReport(c, r, p))
	}
	return out
}

// unreached says why requests don't reach what a route leads to by the table of a port, though it is there.
func (i *Ingest) unreached(c *memo.Ctx, r *Route, at model.ServicePort) *Verdict {
	return cmp.Or(i.overWays(c, r.ref, at.Namespace), i.unextendedBy(c, r.Rules, at), i.unaskableBy(c, r.Rules, at),
		i.forgedBy(c, r.Rules, at))
}

func (i *Ingest) parentReport(c *memo.Ctx, r *Route, p parent) ParentReport {
	var has []model.Attachment
	var lost []lostPorts
	refused := p.refused
	if over, ok := i.over(c, r.ref, p.service.Namespace); ok && refused == nil {
		refused = &over // and nothing else that would cost, for there may be many like it
	} else if refused == nil {
		has, lost = i.outcome(c, r, p)
	}
	if refused == nil && len(has) == 0 {
		refused = &Verdict{
			Reason:  lost[0].Reason,
			Message: fmt.Sprintf("the route attaches to no port of Service %s: %s", p.service, sentences(lost)),
		}
	}
	out := ParentReport{Ref: p.ref, Attachments: has, Foreign: p.foreign}
	unprogrammed := "the route is not accepted"
	if refused == nil && r.invalid != nil {
		refused, unprogrammed = r.invalid,
			"the route is not accepted: requests that its rules match get an error, all others a 404"
	}
	resolved, found := r.resolved, "all backends were found"
	if refused == nil && resolved == nil { // one reason is enough, and the other will follow
		resolved = i.unreached(c, r, has[0].Port)
		found += i.partlyKnown(c, r, i.Binding.Get(c, p.service).Waypoint)
	}
	out.Conditions = append(out.Conditions,
		conditions.Judged(string(gwv1.RouteConditionAccepted), refused, string(gwv1.RouteReasonAccepted),
			i.acceptedMessage(c, r, p.service, has, lost), r.generation),
		conditions.Judged(string(gwv1.RouteConditionResolvedRefs), resolved, string(gwv1.RouteReasonResolvedRefs),
			found, r.generation))
	if refused != nil {
		out.Unprogrammed = &Verdict{Reason: refused.Reason, Message: unprogrammed}
		return out
	}
	if r.partial != nil { // not where the route isn't accepted, says the API
		out.Conditions = append(out.Conditions, conditions.New(string(gwv1.RouteConditionPartiallyInvalid),
			metav1.ConditionTrue,
			r.partial.Reason, r.partial.Message, r.generation))
	}
	off := fmt.Sprintf("a label of Service %s or of its namespace keeps the Service off every waypoint", p.service)
	if out.Unprogrammed = i.unserved(c, p.service, off); out.Unprogrammed == nil {
		b := i.Binding.Get(c, p.service)
		i.leadTo(c, b, &out)
		out.Dialled = i.dialled(c, has)
		for _, port := range ruleBackends(r.Rules) {
			out.Backends = append(out.Backends, i.clusterName(c, port))
		}
		for _, h := range ruleExternals(r.Rules) {
			out.Backends = append(out.Backends, names.External(h.Name.Namespace, h.Name.Name, h.Version))
		}
		slices.Sort(out.Backends)
		out.Backends = slices.Compact(out.Backends)
	}
	return out
}

// unserved says why no waypoint serves a Service, by none where nothing but that is the matter; nil where one does, or
// is to.
func (i *Ingest) unserved(c *memo.Ctx, svc cluster.Key, none string) *Verdict {
	var why string
	switch b := i.Binding.Get(c, svc); {
	case b.Unsupported != "":
		why = b.Unsupported
	case b.None():
		why = cmp.Or(i.unservable(c, i.Service.Get(c, svc)), none)
	case b.Problem != "":
		why = b.Problem + "; until then, " + b.Connections() + " to the Service are refused"
	default:
		return nil
	}
	return &Verdict{Reason: v1alpha1.EntryReasonNoWaypoint, Message: why}
}

// dialled are the addresses at which callers dial ports of one Service.
func (i *Ingest) dialled(c *memo.Ctx, ports []model.Attachment) []netip.AddrPort {
	var out []netip.AddrPort
	for _, at := range ports {
		for _, vip := range i.Service.Get(c, at.Port.ServiceName()).VIPs {
			out = append(out, netip.AddrPortFrom(vip, at.Port.Port))
		}
	}
	return out
}

// lostPorts are ports of one Service that a route doesn't get, for one reason.
type lostPorts struct {
	Verdict
	ports []model.Attachment
}

// outcome tells which of the ports that a parentRef asks for the route gets, and why it doesn't get the others.
func (i *Ingest) outcome(c *memo.Ctx, r *Route, p parent) (has []model.Attachment, lost []lostPorts) {
	for _, at := range p.attachments {
		why, isLost := i.lost.Get(c, at)[r.ref]
		if !isLost {
			has = append(has, at)
			continue
		}
		n := slices.IndexFunc(lost, func(l lostPorts) bool { return l.Verdict == why })
		if n < 0 {
			n, lost = len(lost), append(lost, lostPorts{Verdict: why})
		}
		lost[n].ports = append(lost[n].ports, at)
	}
	return has, lost
}

func sentences(lost []lostPorts) string {
	out := make([]string, 0, len(lost))
	for _, l := range lost {
		out = append(out, fmt.Sprintf("port %s: %s", portNumbers(l.ports), l.Message))
	}
	return strings.Join(out, "; ")
}

func portNumbers(ports []model.Attachment) string {
	out := make([]string, 0, len(ports))
	for _, p := range ports {
		out = append(out, fmt.Sprint(p.Port.Port))
	}
	return strings.Join(out, ", ")
}

func (i *Ingest) acceptedMessage(
	c *memo.Ctx, r *Route, svc cluster.Key, ports []model.Attachment, lost []lostPorts,
) string {
	out := fmt.Sprintf("attached to Service %s, port %s", svc, portNumbers(ports))
	if len(lost) > 0 {
		out += "; not to " + sentences(lost)
	}
	parts := append([]string{out}, r.notes...)
	if undeclared := i.undeclared(c, svc, ports); len(undeclared) > 0 {
		parts = append(parts, fmt.Sprintf(
			"port %s declares no protocol and is taken for HTTP because a route attaches: connections with another protocol "+
				"are closed (set appProtocol, to tcp if the port is not HTTP)",
			portNumbers(undeclared)))
	}
	for _, at := range ports {
		for _, text := range i.shadowed.Get(c, at)[r.ref] {
			if !slices.Contains(parts, text) {
				parts = append(parts, text)
			}
		}
	}
	return strings.Join(parts, "; ")
}

// undeclared are those of a Service's ports whose protocol a route decides, not a declaration.
func (i *Ingest) undeclared(c *memo.Ctx, key cluster.Key, ports []model.Attachment) []model.Attachment {
	svc := i.Service.Get(c, key)
	if svc == nil {
		return nil
	}
	return slices.DeleteFunc(slices.Clone(ports), func(at model.Attachment) bool {
		port, ok := svc.Port(at.Port.Port)
		return !ok || port.Protocol != model.ProtocolUndeclared
	})
}
