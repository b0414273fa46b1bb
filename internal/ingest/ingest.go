// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package ingest decides, once, what each object of the cluster means: attachment, references, grants, conflicts and
// precedence. Model and conditions come out of the same pass, so a status can never disagree with the configuration.
//
// Every decision is a pure function of the store, remembered by internal/memo: it is taken again only when something
// that it read has changed.
package ingest

import (
	"cmp"
	"maps"
	"net/netip"
	"reflect"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Ingest holds the decisions. All of them may be read by key, and watched.
type Ingest struct {
	authorization
	authenticationDecisions
	backendTLS
	externals
	foreignEndpoints
	store *cluster.Store
	check RuleCheck
	// Rejected by proxies.
	Rejected *Rejected

	// Settings of the mesh as a whole.
	Settings *memo.Func[struct{}, Settings]
	// Service is nil where there is none.
	Service *memo.Func[cluster.Key, *model.Service]
	// Claims of pods to an address.
	Claims    *memo.Func[netip.Addr, Claims]
	podRanges *memo.Func[struct{}, []netip.Prefix]
	// nodeRanges are what all Nodes say, by node, rangesAt what that means for the pods of one.
	nodeRanges *memo.Func[struct{}, map[string]ranges]
	rangesAt   *memo.Func[string, ranges]
	// Workload is nil where no pod has the address.
	Workload *memo.Func[netip.Addr, *model.Workload]
	sliceOf  *memo.Func[cluster.Key, *slice]
	// backingOf a Service; never nil.
	backingOf, chosenOf *memo.Func[cluster.Key, *backing]
	// asked and most are numbers of endpoints of a Service, endpointShare of each Service in a namespace.
	asked, most   *memo.Func[cluster.Key, int]
	endpointShare *memo.Func[string, int]
	// LeftOut tells which of a Service's endpoints proxies don't know.
	LeftOut *memo.Func[cluster.Key, LeftOut]
	// Endpoints of a Service's port, sorted by address.
	Endpoints *memo.Func[model.ServicePort, []model.Endpoint]
	// NodeEndpoints are a Service's endpoints as the proxy of one node should see them; Spread tells whether that is the
	// same for all nodes.
	NodeEndpoints *memo.Func[NodePort, []model.Endpoint]
	Spread        *memo.Func[model.ServicePort, bool]
	// CallerEndpoints of a Service are those that only callers of some namespaces go to: its waypoint's.
	CallerEndpoints *memo.Func[cluster.Key, []model.Endpoint]
	// identitiesOf a Service's port are those that may answer for it, sorted.
	identitiesOf *memo.Func[model.ServicePort, []string]
	// Route is nil where there is none.
	Route *memo.Func[model.ObjectRef, *Route]
	// asksOf, matchesOf and leadsOfRoute are what others than the route itself read of it.
	asksOf       *memo.Func[model.ObjectRef, *asks]
	matchesOf    *memo.Func[model.ObjectRef, []ruleMatch]
	leadsOfRoute *memo.Func[model.ObjectRef, *leads]
	claims       *memo.Func[model.Attachment, *claims]
	// protocolOf, lost and shadowed are of the claims; callersOf a Service are the namespaces whose claims count.
	protocolOf *memo.Func[model.Attachment, model.Protocol]
	lost       *memo.Func[model.Attachment, map[model.ObjectRef]Verdict]
	shadowed   *memo.Func[model.Attachment, map[model.ObjectRef][]string]
	callersOf  *memo.Func[cluster.Key, []string]
	// leads from an attachment; never nil.
	leads *memo.Func[model.Attachment, *leads]
	// attached are the routes of a Service, routable its ports that may have some.
	attached *memo.Func[cluster.Key, []attached]
	routable *memo.Func[cluster.Key, []model.Attachment]
	billOf   *memo.Func[model.ObjectRef, *bill]
	// overAuthor and overConsumer are routes that would cost too much: all of a namespace's, and those for Services of
	// another.
	overAuthor   *memo.Func[string, map[model.ObjectRef]Verdict]
	overConsumer *memo.Func[consumer, map[model.ObjectRef]Verdict]
	spent        *memo.Func[consumer, cost]
	// sums of bills, in parts.
	sums *memo.Func[portion, *sum]
	// guardBillOf and overGuards are likewise about the guards of all that routes lead to.
	guardBillOf *memo.Func[model.ObjectRef, *bill]
	overGuards  *memo.Func[consumer, map[model.ObjectRef]overWay]
	// share is what each consumer has of what all may cost an owner; authors are their namespaces.
	share   *memo.Func[string, cost]
	authors *memo.Func[string, []string]
	// Table of an attachment; never nil.
	Table *memo.Func[model.Attachment, *model.RouteTable]
	// rulesOf a route in a table.
	rulesOf *memo.Func[routeAt, []placedRule]
	// OwnGuards are RouteTable.Guards.
	OwnGuards *memo.Func[model.Attachment, []model.Guard]
	// Upstream is a Service's port as a destination of waypoints.
	Upstream *memo.Func[model.ServicePort, model.Upstream]
	// wantedBinding is the Binding that a Service asks for; overPorts are Services of a namespace that can't have it.
	wantedBinding *memo.Func[cluster.Key, Binding]
	overPorts     *memo.Func[string, map[cluster.Key]int]
	// Binding of a Service to its waypoint.
	Binding *memo.Func[cluster.Key, Binding]
	// Bound is the Binding, for the Service's status.
	Bound *memo.Func[cluster.Key, Binding]
	// Waypoint is nil where the Gateway is none of ours.
	Waypoint *memo.Func[cluster.Key, *model.Waypoint]
	// Front is what a waypoint listens for: all of it but where it sends.
	Front *memo.Func[cluster.Key, *model.Waypoint]
	// servedAs is what a waypoint has for a Service, servedIn that of a part of its namespace.
	servedAs *memo.Func[cluster.Key, *served]
	servedIn *memo.Func[servedPart, *served]
	// portsIn are the ports of such a part, portsAt all that the waypoint serves.
	portsIn *memo.Func[servedPart, []model.ServedPort]
	portsAt *memo.Func[cluster.Key, []model.ServedPort]
	// roles and tunnels are what its resources depend on; see Serves.
	roles   *memo.Func[memo.Picked[cluster.Key, model.ServicePort], role]
	tunnels *memo.Func[cluster.Key, bool]
	// HeaderLimits of a waypoint.
	HeaderLimits *memo.Func[cluster.Key, model.HeaderLimits]
	// NeedsAutomatic tells whether a namespace needs an automatic waypoint.
	NeedsAutomatic *memo.Func[string, bool]
	// Destination of an address that captured pods dial; never nil.
	Destination *memo.Func[netip.AddrPort, *model.Destination]
	// traffic are the TrafficPolicies; overTraffic are those of a namespace that are too much, trafficBillOf what one
	// costs.
	traffic          *policy.Policies[trafficPolicy]
	overTraffic      *memo.Func[string, map[cluster.Key]Verdict]
	trafficBillOf    *memo.Func[cluster.Key, *bill]
	backendTrafficOf *policy.Policies[backendTraffic]
	// extensionOf reads an HTTPExtension; nil where there is none.
	extensionOf *memo.Func[cluster.Key, *extension]
	// moduleOf a ConfigMap; never nil.
	moduleOf *memo.Func[cluster.Key, *module]
	// extensionsAllowed are the types of extensions that the waypoints of a namespace may run.
	extensionsAllowed *memo.Func[string, map[v1alpha1.ExtensionType]bool]
	// Report on a route or a policy, for its status; nil where that is gone.
	Report *memo.Func[model.ObjectRef, *Report]
	// policyReports are the reports on policies, by the name of their kind.
	policyReports map[string]func(*memo.Ctx, cluster.Key) *Report
}

// Settings is what the Mesh object says to every proxy.
type Settings struct {
	// present is false until there is a Mesh object, and once it is being deleted.
	present     bool
	TrustDomain string
	// LogAll and LogErrors are what proxies write to their access logs.
	LogAll, LogErrors bool
	// defaultDeny: pods let in nobody whom no policy allows.
	defaultDeny bool
}

// RuleCheck says why proxies can't carry out a rule; nil if they can. badMatch: it is because of the rule's match. It
// is how ingest, which knows no proxy, decides on every rule and says so in the route's status. It must be pure.
type RuleCheck func(model.Rule) (badMatch bool, err error)

// New defines the decisions over a store.
func New(g *memo.Graph, store *cluster.Store, check RuleCheck) *Ingest {
	i := &Ingest{store: store, check: check, Rejected: &Rejected{graph: g, of: map[model.ObjectRef]map[string]string{}}}
	i.policyReports = map[string]func(*memo.Ctx, cluster.Key) *Report{}
	i.Settings = memo.Define(g, "settings", same[Settings], i.settings)
	i.Service = memo.Define(g, "service", reflectEqual[*model.Service], i.service)
	i.Claims = memo.Define(g, "claimsOf", reflectEqual[Claims], i.claimsOf)
	i.podRanges = memo.Define(g, "podRanges", slices.Equal[[]netip.Prefix], i.meshRanges)
	i.nodeRanges = memo.Define(g, "nodeRanges", reflectEqual[map[string]ranges], i.allRanges)
	i.rangesAt = memo.Define(g, "rangesAt", sameRanges, i.rangesOf)
	i.Workload = memo.Define(g, "workload", reflectEqual[*model.Workload], i.workload)
	i.sliceOf = memo.Define(g, "slice", sameSlice, i.slice)
	i.backingOf = memo.Define(g, "backing", same[*backing], i.backing)
	i.chosenOf = memo.Define(g, "chosen", same[*backing], i.chosen)
	i.asked = memo.Define(g, "askedEndpoints", same[int], i.askedEndpoints)
	i.endpointShare = memo.Define(g, "endpointShare", same[int], i.shareOfServices).Steady()
	i.most = memo.Define(g, "mostAtPort", same[int], i.mostAtPort)
	i.LeftOut = memo.Define(g, "leftOut", same[LeftOut], i.leftOut)
	i.Endpoints = memo.Define(g, "endpoints", SameEndpoints, i.endpoints)
	i.NodeEndpoints = memo.Define(g, "nodeEndpoints", SameEndpoints, i.nodeEndpoints)
	i.Spread = memo.Define(g, "spread", same[bool], i.spread)
	i.CallerEndpoints = memo.Define(g, "callerEndpoints", SameEndpoints, i.callerEndpoints)
	i.identitiesOf = memo.Define(g, "identities", slices.Equal[[]string], i.identities)
	i.Route = memo.Define(g, "route", reflectEqual[*Route], i.route)
	i.defineClaims(g)
	i.billOf = memo.Define(g, "bill", reflectEqual[*bill], i.bill)
	i.sums = memo.Define(g, "sums", sameSum, i.sumOfPortion)
	i.overAuthor = memo.Define(g, "overAuthor", maps.Equal[map[model.ObjectRef]Verdict], i.tooMuchOfAuthor).Steady()
	i.overConsumer = memo.Define(g, "overConsumer", maps.Equal[map[model.ObjectRef]Verdict], i.tooMuchOfConsumer).Steady()
	i.spent = memo.Define(g, "spent", same[cost], i.spentByConsumer)
	i.share = memo.Define(g, "share", same[cost], i.shareOfConsumers).Steady()
	i.authors = memo.Define(g, "authors", slices.Equal[[]string], i.authorsFor)
	i.defineWays(g)
	i.defineTables(g)
	i.Upstream = memo.Define(g, "upstream", reflectEqual[model.Upstream], i.upstream)
	i.wantedBinding = memo.Define(g, "wantedBinding", reflectEqual[Binding], i.wanted)
	i.overPorts = memo.Define(g, "overPorts", maps.Equal[map[cluster.Key]int], i.tooManyPorts).Steady()
	i.Binding = memo.Define(g, "binding", reflectEqual[Binding], i.binding)
	i.Bound = memo.Define(g, "bound", reflectEqual[Binding], i.bound)
	i.Waypoint = memo.Define(g, "waypoint", sameWaypoint, i.waypoint).Steady()
	i.servedAs = memo.Define(g, "servedAs", sameServed, i.servedOf).Steady()
	i.servedIn = memo.Define(g, "servedIn", sameServed, i.servedInPart).Steady()
	i.portsIn = memo.Define(g, "portsIn", slices.Equal[[]model.ServedPort], i.portsInPart).Steady()
	i.portsAt = memo.Define(g, "portsAt", slices.Equal[[]model.ServedPort], i.portsServed).Steady()
	i.Front = memo.Define(g, "front", reflectEqual[*model.Waypoint], i.front)
	i.roles = memo.Pick(i.Waypoint, "roles", same[role], moved, roleIn)
	i.tunnels = memo.Define(g, "tunnels", same[bool], i.hasTunnels)
	i.HeaderLimits = memo.Define(g, "headerLimits", same[model.HeaderLimits], i.headerLimits)
	i.NeedsAutomatic = memo.Define(g, "needsAutomatic", same[bool], i.needsAutomatic)
	i.Destination = memo.Define(g, "destination", reflectEqual[*model.Destination], i.destination)
	i.defineAuthorization(g)
	i.defineAuthentication(g)
	i.defineBackendTLS(g)
	i.defineExternals(g)
	i.trafficBillOf = memo.Define(g, "trafficBill", reflectEqual[*bill], i.trafficBill)
	i.overTraffic = memo.Define(g, "overTraffic", maps.Equal[map[cluster.Key]Verdict], i.tooMuchTraffic).Steady()
	i.defineForeignEndpoints(g)
	i.traffic = definePolicies(g, i, i.trafficPolicies())
	i.backendTrafficOf = definePolicies(g, i, i.backendTrafficPolicies())
	i.defineExtensions(g)
	i.Report = memo.Define(g, "report", sameReport, i.report)
	return i
}

func same[T comparable](a, b T) bool  { return a == b }
func reflectEqual[T any](a, b T) bool { return reflect.DeepEqual(a, b) }

func (i *Ingest) settings(c *memo.Ctx, _ struct{}) Settings {
	m, ok := i.store.Meshes.Get(c, cluster.Key{Name: names.Mesh})
	if !ok {
		return Settings{TrustDomain: member.TrustDomain(nil), LogAll: true, LogErrors: true}
	}
	mode := cmp.Or(m.Spec.AccessLog.Mode, v1alpha1.AccessLogAll)
	return Settings{
		present: m.DeletionTimestamp == nil, TrustDomain: member.TrustDomain(m),
		LogAll: mode == v1alpha1.AccessLogAll, LogErrors: mode != v1alpha1.AccessLogOff,
		defaultDeny: m.Spec.Authorization.Default == v1alpha1.AuthorizationDefaultDeny,
	}
}

// trustDomain is read by nearly everything; it hardly ever changes.
func (i *Ingest) trustDomain(c *memo.Ctx) string { return i.Settings.Get(c, struct{}{}).TrustDomain }

// namespace is nil where there is none.
func (i *Ingest) namespace(c *memo.Ctx, name string) *corev1.Namespace {
	ns, _ := i.store.Namespaces.Get(c, cluster.Key{Name: name})
	return ns
}
