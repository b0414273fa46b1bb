// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"net/netip"
	"slices"

	"google.golang.org/protobuf/proto"
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/translate/waypoint"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// setRef names the resources of a type that belong to a scope.
type setRef struct {
	scope   xds.Scope
	typeURL string
}

// resources derives xDS resources from the decisions of ingest. A resource that is equal in all scopes is derived and
// marshalled once.
type resources struct {
	ingest *ingest.Ingest
	// shared holds what does not depend on the scope; scoped what a scope sees, nil where it may not or there is none.
	shared *memo.Func[xds.Key, *xds.Resource]
	scoped *memo.Func[xds.Key, *xds.Resource]
	// endpoints are the load assignments of waypoints.
	endpoints *memo.Func[sentTo, *xds.Resource]
	// set lists what a wildcard subscription gets.
	set *memo.Func[setRef, []string]
	// trials are what the proxies of a scope are shown besides; see trialRoutes.
	trials map[xds.Scope]*trial
	// closed are the namespaces whose callers a table answers an error, by its name; see Engine.close.
	closed map[string]map[string]bool
	pods   *cluster.Collection[*corev1.Pod]
	// rules are the routes of one rule in a table: an edit of another one doesn't concern them.
	rules *memo.Func[ruleIn, *xds.Piece]
	// guards are the filters that guard pods, which all pods of a kind have in common.
	guards *memo.Func[ingest.PodKind, *xds.Extension]
	// failed is told of resources that could not be made; nothing else is held up by them.
	failed func(xds.Key, error)
}

func newResources(
	g *memo.Graph, store *cluster.Store, in *ingest.Ingest, failed func(xds.Key, error),
) *resources {
	r := &resources{
		ingest: in, trials: map[xds.Scope]*trial{}, closed: map[string]map[string]bool{}, failed: failed,
		pods: store.Pods,
	}
	equal := func(a, b *xds.Resource) bool { return a == b || (a != nil && b != nil && a.Equal(b)) }
	r.shared = memo.Define(g, "shared", equal, r.makeShared)
	r.scoped = memo.Define(g, "scoped", equal, r.makeScoped)
	r.endpoints = memo.Define(g, "waypointAssignments", equal, r.makeEndpoints)
	r.rules = memo.Define(g, "routesOfRule", (*xds.Piece).Equal, r.makeRule)
	r.guards = memo.Define(g, "guards", (*xds.Extension).Equal, r.makeGuard)
	r.set = memo.Define(g, "set", slices.Equal[[]string], r.makeSet)
	return r
}

// makeSet lists what a proxy gets that subscribes to everything. Node proxies ask for what they need by name; their
// listeners are made by the agent.
func (r *resources) makeSet(c *memo.Ctx, k setRef) []string {
	gateway, ok := catalogue.WaypointOf(k.scope)
	if !ok {
		return nil
	}
	w := r.ingest.Waypoint.Get(c, gateway)
	if w == nil {
		return nil
	}
	var out []string
	switch k.typeURL {
	case xds.TypeListener:
		out = []string{names.ListenerMTLS, names.ListenerTrial}
		if w.Tunnels {
			out = append(out, names.ListenerTunnel)
		}
	case xds.TypeScopedRoute:
		for _, p := range w.Ports {
			out = append(out, names.ServicePort(p.Namespace, p.Service, p.Port))
		}
	case xds.TypeCluster:
		for _, p := range w.Ports {
			if !p.Protocol.HTTP() {
				out = append(out, names.InboundCluster(p.Namespace, p.Service, p.Port))
			}
		}
		for _, p := range w.Backends {
			out = append(out, names.RequestsTo(p.Namespace, p.Service, p.Port, r.ingest.SpeaksTLS.Get(c, p)))
		}
		for _, key := range w.Externals {
			if e := r.ingest.External.Get(c, key); e != nil {
				out = append(out, names.External(key.Namespace, key.Name, e.Version))
			}
		}
		if w.Tunnels {
			out = append(out, names.ClusterTunnel)
		}
	}
	slices.Sort(out)
	return out
}

// makeScoped decides whether a scope may see a resource, and where it comes from.
func (r *resources) makeScoped(c *memo.Ctx, k xds.Key) *xds.Resource {
	switch k.TypeURL {
	case xds.TypeRuntime:
		return r.shared.Get(c, xds.Key{ID: k.ID})
	case xds.TypeExtension:
		return r.extension(c, k)
	}
	if node, ok := catalogue.NodeOf(k.Scope); ok || k.Scope == catalogue.AllNodes {
		return r.forNode(c, node, k)
	}
	gateway, ok := catalogue.WaypointOf(k.Scope)
	if !ok || !r.ingest.IsWaypoint(c, gateway) {
		return nil
	}
	return r.forWaypoint(c, gateway, k)
}

// extension is asked for by name when a listener came that has it, and that waits for it.
func (r *resources) extension(c *memo.Ctx, k xds.Key) *xds.Resource {
	if namespace, pod, ok := names.ParsePodAuthorization(k.Name); ok {
		return r.guardOfPod(c, k, cluster.Key{Namespace: namespace, Name: pod})
	}
	gateway, ok := catalogue.WaypointOf(k.Scope)
	switch {
	case !ok:
	case k.Name == names.AuthorizationTCP:
		ports, editions := r.ingest.TCPGuards.Get(c, gateway), model.Editions{}
		for _, p := range ports {
			editions.Add(p.Guards...)
		}
		return r.resource(k, envoy.Extension(k.Name, authorization.TCP(ports)), editions.Sorted()...)
	case k.Name == names.FilterTokens:
		all := r.ingest.Authentications.Get(c, gateway)
		return r.resource(k, envoy.Extension(k.Name, authentication.Tokens(*all)), all.Editions()...)
	case k.Name == names.FilterForm:
		all := r.ingest.Authentications.Get(c, gateway)
		return r.resource(k, envoy.Extension(k.Name, authentication.Form(*all)), all.Editions()...)
	}
	return nil
}

// guardOfPod is for the node of the pod and for no other.
func (r *resources) guardOfPod(c *memo.Ctx, k xds.Key, key cluster.Key) *xds.Resource {
	pod, ok := r.pods.Get(c, key)
	if node, isNode := catalogue.NodeOf(k.Scope); !ok || !isNode || pod.Spec.NodeName != node {
		return nil
	}
	kind := r.ingest.PodKind.Get(c, key)
	if kind == (ingest.PodKind{}) { // no member of the mesh: nobody is let in
		return nil
	}
	filter := r.guards.Get(c, kind)
	if filter == nil {
		return nil
	}
	res, err := filter.Named(k.Name)
	if err != nil {
		r.failed(k, err)
	}
	return res
}

// makeGuard makes what guards the pods of a kind: once for all of them.
func (r *resources) makeGuard(c *memo.Ctx, kind ingest.PodKind) *xds.Extension {
	guard, editions := r.ingest.GuardOf.Get(c, kind), model.Editions{}
	editions.Add(guard.Guard)
	out, err := xds.NewExtension(envoy.Any(authorization.Node(*guard)), editions.Sorted()...)
	if err != nil {
		r.failed(xds.Key{ID: xds.ID{TypeURL: xds.TypeExtension}}, err)
	}
	return out
}

func (r *resources) forNode(c *memo.Ctx, nodeName string, k xds.Key) *xds.Resource {
	switch k.TypeURL {
	case xds.TypeEndpoint:
		e, ok := parseNodeEndpoints(k.Name)
		if !ok {
			return nil
		}
		if !r.ingest.Spread.Get(c, e.port) {
			list := r.ingest.NodeEndpoints.Get(c, ingest.NodePort{ServicePort: e.port, Node: nodeName})
			return r.resource(k, upstream.NodeEndpoints(k.Name, r.forNodes(c, e, list)))
		}
	case xds.TypeCluster:
		if _, err := netip.ParseAddrPort(k.Name); err != nil {
			return nil
		}
	default:
		return nil
	}
	return r.shared.Get(c, xds.Key{ID: k.ID})
}

func (r *resources) forWaypoint(c *memo.Ctx, gateway cluster.Key, k xds.Key) *xds.Resource {
	switch k.TypeURL {
	case xds.TypeListener:
		switch k.Name {
		case names.ListenerMTLS:
			return r.resource(k, waypoint.MTLSListener(*r.ingest.Front.Get(c, gateway)))
		case names.ListenerTrial:
			return r.resource(k, waypoint.TrialListener())
		case names.ListenerTunnel:
			if r.ingest.Tunnels(c, gateway) {
				return r.resource(k, waypoint.TunnelListener())
			}
		}
		return nil
	case xds.TypeCluster:
		return r.clusterOf(c, gateway, k)
	case xds.TypeRoute, xds.TypeScopedRoute:
		if k.Name == names.RouteTrial && k.TypeURL == xds.TypeRoute {
			return r.trialRoutes(c, k)
		}
		at, ok := parseTable(k.Name)
		if !ok {
			return nil
		}
		if _, served := r.ingest.Serves(c, gateway, at.Port); !served {
			return nil
		}
	case xds.TypeEndpoint:
		port, ok := r.reaches(c, gateway, k.Name)
		if !ok {
			return nil
		}
		return r.endpoints.Get(c, sentTo{
			k.ID,
			ingest.Sent{ServicePort: port, Word: r.ingest.WordTo(c, gateway, port)},
			r.ingest.MostEndpointsAt(c, gateway, port),
		})
	default:
		return nil
	}
	return r.shared.Get(c, xds.Key{ID: k.ID})
}

// clusterOf a waypoint; nil where it is in no set of it.
func (r *resources) clusterOf(c *memo.Ctx, gateway cluster.Key, k xds.Key) *xds.Resource {
	identity, headers := r.ingest.WaypointIdentity(c, gateway), r.ingest.HeaderLimits.Get(c, gateway)
	if k.Name == names.ClusterTunnel && r.ingest.Tunnels(c, gateway) {
		return r.resource(k, upstream.Tunnel(identity))
	}
	if port, ok := parsePort(k.Name, "service"); ok && r.sendsTo(c, gateway, port, false) {
		return r.resource(k, upstream.ServicePort(r.ingest.Upstream.Get(c, port), identity, headers))
	}
	if port, ok := parsePort(k.Name, names.PrefixTLS); ok && r.sendsTo(c, gateway, port, true) {
		return r.resource(k, upstream.TLSPort(r.ingest.Upstream.Get(c, port), headers))
	}
	if ns, name, version, ok := names.ParseExternal(k.Name); ok {
		key := cluster.Key{Namespace: ns, Name: name}
		if e := r.ingest.External.Get(c, key); e != nil && e.Version == version && r.ingest.LeavesBy(c, gateway, key) {
			return r.resource(k, upstream.External(e.External, r.ingest.NotOutside.Get(c, struct{}{}), headers))
		}
	}
	if ns, svc, number, ok := names.ParseInboundCluster(k.Name); ok {
		port := model.ServicePort{Namespace: ns, Service: svc, Port: number}
		if protocol, served := r.ingest.Serves(c, gateway, port); served && !protocol.HTTP() {
			return r.resource(k, upstream.Inbound(r.ingest.Upstream.Get(c, port), identity, headers))
		}
	}
	return nil
}

// reaches tells which port a load assignment is named after, and whether a waypoint sends requests, or passes
// connections on, to it by the cluster that has it.
func (r *resources) reaches(c *memo.Ctx, gateway cluster.Key, name string) (model.ServicePort, bool) {
	port, byTLS := parsePort(name, names.PrefixTLSEndpoints)
	if !byTLS {
		var ok bool
		if port, ok = parsePort(name, "waypoint"); !ok {
			return port, false
		}
		if protocol, ok := r.ingest.Serves(c, gateway, port); ok && !protocol.HTTP() {
			return port, true
		}
	}
	return port, r.sendsTo(c, gateway, port, byTLS)
}

// sendsTo tells whether a waypoint sends requests to a port, by TLS with the application or without.
func (r *resources) sendsTo(c *memo.Ctx, gateway cluster.Key, port model.ServicePort, byTLS bool) bool {
	return r.ingest.SendsRequestsTo(c, gateway, port) && r.ingest.SpeaksTLS.Get(c, port) == byTLS
}

// sentTo is a load assignment of waypoints that send there by somebody's word, with so many endpoints at most.
type sentTo struct {
	xds.ID
	to   ingest.Sent
	most int
}

// makeEndpoints makes a load assignment once for all waypoints for which it is the same.
func (r *resources) makeEndpoints(c *memo.Ctx, k sentTo) *xds.Resource {
	list := r.ingest.WaypointEndpoints.Get(c, k.to)
	if k.to.Word != ingest.OfOwner {
		own := sentTo{k.ID, ingest.Sent{ServicePort: k.to.ServicePort, Word: ingest.OfOwner}, k.most}
		if ingest.SameEndpoints(list, r.ingest.WaypointEndpoints.Get(c, own.to)) {
			return r.endpoints.Get(c, own)
		}
	}
	key := xds.Key{ID: k.ID}
	list = ingest.Some(list, k.most)
	if _, byTLS := parsePort(k.Name, names.PrefixTLSEndpoints); byTLS {
		return r.resource(key, upstream.TLSEndpoints(k.to.ServicePort, list))
	}
	return r.resource(key, upstream.WaypointEndpoints(k.to.ServicePort, ingest.Hinted(list)))
}

// parseTable finds out what the route table of a name is for.
func parseTable(name string) (model.Attachment, bool) {
	port, ok := parsePort(name, "service")
	return model.Attachment{Port: port}, ok
}

func parsePort(name, prefix string) (model.ServicePort, bool) {
	ns, svc, port, ok := names.ParseServicePort(name, prefix)
	return model.ServicePort{Namespace: ns, Service: svc, Port: port}, ok
}

// nodeEndpoints is what the name of a load assignment of node proxies says.
type nodeEndpoints struct {
	port model.ServicePort
	ipv6 bool
	// byCaller: the Service's waypoint is part of it, for some callers.
	byCaller bool
}

func parseNodeEndpoints(name string) (e nodeEndpoints, ok bool) {
	ns, svc, number, ipv6, ok := names.ParseNodeEndpoints(name)
	if !ok {
		ns, svc, number, ipv6, ok = names.ParseCallerEndpoints(name)
		e.byCaller = true
	}
	e.port, e.ipv6 = model.ServicePort{Namespace: ns, Service: svc, Port: number}, ipv6
	return e, ok
}

// forNodes picks the endpoints of one address family, and adds those that are for some callers only.
func (r *resources) forNodes(c *memo.Ctx, e nodeEndpoints, endpoints []model.Endpoint) []model.Endpoint {
	out := slices.DeleteFunc(slices.Clone(endpoints),
		func(o model.Endpoint) bool { return o.Address.Addr().Is6() != e.ipv6 })
	if e.byCaller {
		out = append(out, r.ingest.CallerEndpoints.Get(c, e.port.ServiceName())...)
	}
	return out
}

// makeShared derives a resource that every scope that may see it sees alike.
func (r *resources) makeShared(c *memo.Ctx, k xds.Key) *xds.Resource {
	switch k.TypeURL {
	case xds.TypeCluster:
		if addr, err := netip.ParseAddrPort(k.Name); err == nil {
			return r.resource(k, upstream.Destination(*r.ingest.Destination.Get(c, addr)))
		}
	case xds.TypeEndpoint:
		if e, ok := parseNodeEndpoints(k.Name); ok {
			return r.resource(k, upstream.NodeEndpoints(k.Name, r.forNodes(c, e, r.ingest.Endpoints.Get(c, e.port))))
		}
	case xds.TypeRoute:
		if at, ok := parseTable(k.Name); ok {
			return r.routeTable(c, k, at)
		}
	case xds.TypeRuntime:
		if k.Name == names.RuntimeLayer {
			s := r.ingest.Settings.Get(c, struct{}{})
			return r.resource(k, envoy.RuntimeLayer(s.LogAll, s.LogErrors))
		}
	case xds.TypeScopedRoute:
		if at, ok := parseTable(k.Name); ok {
			return r.resource(k, route.Scope(at))
		}
	}
	return nil
}

// resource marshals; a message that can't be is reported and left out.
func (r *resources) resource(k xds.Key, m proto.Message, origin ...string) *xds.Resource {
	res, err := xds.NewResource(k.Name, m, origin...)
	if err != nil {
		r.failed(k, err)
		return nil
	}
	return res
}
