// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"strings"

	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What a policy matches (AccessPolicy) and what it is for (accessTargets) are read apart: an edit of its rules asks no
// pod again whether it is meant.

// authorization holds the decisions that make guards; see docs/design/authorization.md.
type authorization struct {
	// accessPolicyOf is nil where there is none; accessReadOf is the same without a look at what it costs.
	accessPolicyOf, accessReadOf *memo.Func[cluster.Key, *AccessPolicy]
	// overAccess are the policies of a namespace that are too much, accessBillOf what one costs.
	overAccess   *memo.Func[string, map[cluster.Key]Verdict]
	accessBillOf *memo.Func[cluster.Key, *accessBill]
	// accessTargetsOf a policy, one for each of its targetRefs.
	accessTargetsOf *memo.Func[cluster.Key, []AccessTarget]
	// PodGuard of a pod; nil where it is no member of the mesh, so that nothing guards it.
	PodGuard *memo.Func[cluster.Key, *model.PodGuard]
	// PodKind of a pod; GuardOf is the guard that all pods of a kind have in common.
	PodKind *memo.Func[cluster.Key, PodKind]
	GuardOf *memo.Func[PodKind, *model.PodGuard]
	// TCPGuards are those of the ports that a waypoint passes on as they are, sorted; a port that isn't there is closed.
	TCPGuards *memo.Func[cluster.Key, []model.TCPGuard]

	// aimOf a policy, without its rules; aimsIn are those of a namespace in the mesh.
	aimOf  *memo.Func[cluster.Key, *aim]
	aimsIn *memo.Func[string, []*aim]
	// askedIn are the labels by which anything in a namespace chooses pods.
	askedIn *memo.Func[string, []string]
	// kindsIn are the kinds of pods of a namespace, behindOf those of a Service.
	kindsIn  *memo.Func[string, []PodKind]
	behindOf *memo.Func[cluster.Key, []PodKind]
	// selecting are the Services of a namespace, listing those without selector, and listed the pods of one of these.
	selecting *memo.Func[string, []*selecting]
	listing   *memo.Func[string, []cluster.Key]
	listed    *memo.Func[cluster.Key, []cluster.Key]
	// meantOf a pod says whether policies can be for it; meantIn, groupsIn and likeOf are all such pods, for statuses.
	meantOf  *memo.Func[cluster.Key, meant]
	meantIn  *memo.Func[string, map[likePods][]cluster.Key]
	groupsIn *memo.Func[string, []likePods]
	likeOf   *memo.Func[likePods, []cluster.Key]
	// What there is to say of a kind of pods; see the functions.
	portsOf   *memo.Func[PodKind, []podPort]
	networkOf *memo.Func[PodKind, []model.AccessPolicy]
	// networkAims are the policies of level Network that are for pods of a kind.
	networkAims *memo.Func[PodKind, []cluster.Key]
	onlyOf      *memo.Func[PodKind, []uint16]
	// requested are the policies of level Application that are for a Service itself, decided its ports at which requests
	// are decided on.
	requested *memo.Func[cluster.Key, []requested]
	decided   *memo.Func[cluster.Key, []uint16]
	// guardsAt are the guards of requests that are sent to a port, tcpAt those of connections.
	guardsAt, tcpAt *memo.Func[model.ServicePort, []model.Guard]
	// sendsTo are the namespaces that a waypoint sends to, senders the waypoints by that, sendersTo those of one port.
	sendsTo   *memo.Func[cluster.Key, []string]
	senders   *memo.Func[struct{}, map[string][]cluster.Key]
	sendersTo *memo.Func[model.ServicePort, []sender]
	// WaypointEndpoints of a Service's port are its Endpoints without strays and outsiders; kindsOfSlice are the kinds of
	// pods that an EndpointSlice lists, foreignOf the addresses there that no pod of its namespace has.
	WaypointEndpoints *memo.Func[Sent, []model.Endpoint]
	strays            *memo.Func[Sent, []netip.AddrPort]
	outsiders         *memo.Func[model.ServicePort, []netip.AddrPort]
	kindsOfSlice      *memo.Func[cluster.Key, []listedKind]
	foreignOf         *memo.Func[cluster.Key, []netip.Addr]
	// guardedPods are for statuses.
	guardedPods *memo.Func[podChoice, *GuardedPods]
}

func (i *Ingest) defineAuthorization(g *memo.Graph) {
	a := &i.authorization
	a.accessReadOf = memo.Define(g, "accessRead", reflectEqual[*AccessPolicy], i.readAccess)
	a.accessBillOf = memo.Define(g, "accessBill", reflectEqual[*accessBill], i.accessBill)
	a.overAccess = memo.Define(g, "overAccess", maps.Equal[map[cluster.Key]Verdict], i.tooMuchAccess).Steady()
	a.accessPolicyOf = memo.Define(g, "accessPolicy", reflectEqual[*AccessPolicy], i.accessPolicy)
	a.accessTargetsOf = memo.Define(g, "accessTargets", reflectEqual[[]AccessTarget], i.accessTargets)
	a.PodGuard = memo.Define(g, "podGuard", reflectEqual[*model.PodGuard], i.podGuard)
	a.TCPGuards = memo.Define(g, "tcpGuards", reflectEqual[[]model.TCPGuard], i.tcpGuards)
	a.aimOf = memo.Define(g, "aim", reflectEqual[*aim], i.aim).Steady()
	a.aimsIn = memo.Define(g, "aims", slices.Equal[[]*aim], i.aims)
	a.askedIn = memo.Define(g, "askedLabels", slices.Equal[[]string], i.askedLabels)
	a.PodKind = memo.Define(g, "podKind", same[PodKind], i.podKind)
	a.kindsIn = memo.Define(g, "podKinds", slices.Equal[[]PodKind], i.podKinds).Steady()
	a.behindOf = memo.Define(g, "behind", slices.Equal[[]PodKind], i.behind)
	a.selecting = memo.Define(g, "selecting", reflectEqual[[]*selecting], i.selectingServices)
	a.listing = memo.Define(g, "listing", slices.Equal[[]cluster.Key], i.listingServices)
	a.listed = memo.Define(g, "listed", slices.Equal[[]cluster.Key], i.listedPods)
	a.meantOf = memo.Define(g, "meant", same[meant], i.meant)
	a.meantIn = memo.Define(g, "podsMeant", reflectEqual[map[likePods][]cluster.Key], i.podsMeant).Steady()
	a.groupsIn = memo.Define(g, "groupsMeant", slices.Equal[[]likePods], i.groupsMeant).Steady()
	a.likeOf = memo.Define(g, "groupMeant", slices.Equal[[]cluster.Key], i.groupMeant).Steady()
	a.portsOf = memo.Define(g, "podPorts", slices.Equal[[]podPort], i.podPorts)
	a.networkAims = memo.Define(g, "networkAims", slices.Equal[[]cluster.Key], i.networkAimsAt)
	a.networkOf = memo.Define(g, "networkPolicies", reflectEqual[[]model.AccessPolicy], i.networkPolicies)
	a.GuardOf = memo.Define(g, "guard", reflectEqual[*model.PodGuard], i.guard)
	a.onlyOf = memo.Define(g, "only", slices.Equal[[]uint16], i.only)
	a.requested = memo.Define(g, "requested", reflectEqual[[]requested], i.requestedAt)
	a.decided = memo.Define(g, "decided", slices.Equal[[]uint16], i.decidedPorts)
	a.guardsAt = memo.Define(g, "guardsAt", reflectEqual[[]model.Guard], i.guardsOfPort)
	a.tcpAt = memo.Define(g, "tcpGuardsAt", reflectEqual[[]model.Guard], i.tcpGuardsOfPort)
	a.sendsTo = memo.Define(g, "sendsTo", slices.Equal[[]string], i.sendsToNamespaces)
	a.senders = memo.Define(g, "senders", reflectEqual[map[string][]cluster.Key], i.allSenders).Steady()
	a.sendersTo = memo.Define(g, "sendersTo", slices.Equal[[]sender], i.sendersToPort)
	a.WaypointEndpoints = memo.Define(g, "waypointEndpoints", SameEndpoints, i.waypointEndpoints)
	a.strays = memo.Define(g, "strays", slices.Equal[[]netip.AddrPort], i.straysOf)
	a.outsiders = memo.Define(g, "outsiders", slices.Equal[[]netip.AddrPort], i.outsidersOf)
	a.foreignOf = memo.Define(g, "foreignAddresses", slices.Equal[[]netip.Addr], i.foreignAddresses)
	a.kindsOfSlice = memo.Define(g, "kindsOfSlice", sameListed, i.listedKinds)
	a.guardedPods = memo.Define(g, "guardedPods", reflectEqual[*GuardedPods], i.chosenPods)
	i.policyReports[kindAuthorization] = i.accessReport
}

// AccessPolicy is an AuthorizationPolicy as it was read, wherever it is for.
type AccessPolicy struct {
	// The ports of its rules are those of what it targets.
	model.AccessPolicy
	level v1alpha1.EnforcementLevel
	// invalid says why it can't be carried out; nil if it can. It guards its targets even so: it allows nothing, or denies
	// everything.
	invalid *Verdict
}

func (i *Ingest) readAccess(c *memo.Ctx, key cluster.Key) *AccessPolicy {
	p, ok := i.store.Authorization.Get(c, key)
	if !ok {
		return nil
	}
	out := &AccessPolicy{level: p.Spec.EnforcementLevel}
	out.Name, out.Deny, out.DryRun = key, p.Spec.Action == v1alpha1.ActionDeny, p.Spec.DryRun
	out.Edition = model.EditionOf(p.UID, p.Generation)
	domain := i.trustDomain(c)
	for n := range p.Spec.Rules {
		rule := &p.Spec.Rules[n]
		if bad := i.badAccessRule(p, rule); bad != nil && out.invalid == nil {
			bad.Message = fmt.Sprintf("rule %s: %s", accessRuleLabel(n, string(rule.Name)), bad.Message)
			out.invalid = bad
		}
		if r, ok := accessRule(n, rule, key.Namespace, domain); ok {
			out.Rules = append(out.Rules, r)
		}
	}
	for n := range p.Spec.TargetRefs {
		if _, err := podSelector(&p.Spec.TargetRefs[n]); err != nil && out.invalid == nil {
			out.invalid = &Verdict{Reason: string(gwv1.PolicyReasonInvalid), Message: fmt.Sprintf(
				"target %d: %v; until that is mended, all pods of the namespace are taken to be meant", n, err)}
		}
	}
	if out.invalid != nil {
		out.Rules = nil
		if out.Deny {
			out.Rules = []model.AccessRule{{}}
		}
	}
	return out
}

func accessRuleLabel(index int, name string) string {
	return ruleLabel(model.Rule{RuleIndex: index, RuleName: name})
}

// accessRule reads a rule; ok is false for one that matches nobody.
func accessRule(n int, r *v1alpha1.AuthorizationRule, namespace, domain string) (out model.AccessRule, ok bool) {
	out = model.AccessRule{Name: string(r.Name), Index: n}
	if r.Sources != nil {
		if out.Sources = accessSources(r.Sources, namespace, domain); len(out.Sources) == 0 {
			return out, false
		}
	}
	if r.NetworkAttributes != nil {
		for _, p := range r.NetworkAttributes.Ports {
			out.Ports = append(out.Ports, portNumber(p))
		}
		out.Ports = sortedPorts(out.Ports)
	}
	if r.ApplicationAttributes != nil {
		out.Request = accessRequest(r.ApplicationAttributes)
	}
	return out, true
}

// accountsOf are all service accounts of a namespace.
func (i *Ingest) accountsOf(c *memo.Ctx, namespace string) model.AccessSource {
	return model.AccessSource{Identity: names.SPIFFEID(i.trustDomain(c), namespace, ""), Prefix: true}
}

// accessSources are identities, each once. A source that says nothing is nobody.
func accessSources(in []v1alpha1.AuthorizationSource, namespace, domain string) []model.AccessSource {
	found := map[model.AccessSource]struct{}{}
	for _, s := range in {
		switch {
		case s.Type == v1alpha1.AuthorizationSourceTypeSPIFFE && s.SPIFFE != nil:
			found[model.AccessSource{Identity: string(*s.SPIFFE)}] = struct{}{}
		case s.Type == v1alpha1.AuthorizationSourceTypeServiceAccount && s.ServiceAccount != nil:
			ns, account := cmp.Or(deref(s.ServiceAccount.Namespace), namespace), s.ServiceAccount.Name
			if account == "*" {
				found[model.AccessSource{Identity: names.SPIFFEID(domain, ns, ""), Prefix: true}] = struct{}{}
			} else {
				found[model.AccessSource{Identity: names.SPIFFEID(domain, ns, account)}] = struct{}{}
			}
		}
	}
	return slices.SortedFunc(maps.Keys(found), func(a, b model.AccessSource) int {
		return cmp.Or(cmp.Compare(a.Identity, b.Identity), compareBools(a.Prefix, b.Prefix))
	})
}

// accessRequest is nil where any request matches.
func accessRequest(a *v1alpha1.AuthorizationApplicationAttributes) *model.AccessRequest {
	out := &model.AccessRequest{Methods: a.Methods}
	for _, p := range a.Paths {
		out.Paths = append(out.Paths, accessMatch(p.Type, p.Value))
	}
	for _, h := range a.Hosts {
		out.Hosts = append(out.Hosts, strings.ToLower(string(h)))
	}
	for _, h := range a.Headers {
		header := model.AccessHeader{Name: strings.ToLower(string(h.Name))}
		if h.Value != nil {
			m := accessMatch(h.Type, *h.Value)
			header.Value = &m
		}
		out.Headers = append(out.Headers, header)
	}
	for _, m := range a.GRPCMethods {
		out.GRPC = append(out.GRPC, model.AccessGRPC{Service: m.Service, Method: m.Method})
	}
	for _, j := range a.JWTClaims {
		out.Claims = append(out.Claims, model.AccessClaim{Name: j.Name, Values: j.Values})
	}
	if a.CEL != nil {
		out.CEL = a.CEL.Expression
	}
	if reflectEqual(out, &model.AccessRequest{}) {
		return nil
	}
	return out
}

// accessMatch has only types of comparison that badAccessRule lets through.
func accessMatch(typ v1alpha1.AuthorizationMatchType, value string) model.StringMatch {
	of := map[v1alpha1.AuthorizationMatchType]model.MatchType{
		v1alpha1.AuthorizationMatchPrefix: model.MatchPrefix, v1alpha1.AuthorizationMatchRegularExpression: model.MatchRegex,
	}
	return model.StringMatch{Type: cmp.Or(of[typ], model.MatchExact), Value: value}
}
