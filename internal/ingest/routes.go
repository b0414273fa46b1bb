// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Kinds of routes.
const (
	KindHTTPRoute = "HTTPRoute"
	KindGRPCRoute = "GRPCRoute"
)

// Route is an HTTPRoute or GRPCRoute with everything decided that can be decided from it, its parents and its
// backends. What other routes do to it (conflicts) is decided by the route table of each port.
type Route struct {
	Ref        model.ObjectRef
	Generation int64
	Created    time.Time
	Parents    []Parent
	Rules      []model.Rule // flattened, in the order of the object
	// Resolved, Partial and Invalid become conditions.
	Resolved, Partial, Invalid *Verdict
}

// Verdict is the reason and message of a condition that something went wrong for.
type Verdict struct {
	Reason  string
	Message string
}

// Parent is one parentRef of a route that names a Service.
type Parent struct {
	Ref     gwv1.ParentReference
	Service cluster.Key
	Ports   []model.ServicePort // that the route attaches to; empty if refused
	Refused *Verdict
}

func (r *Route) attachesTo(svc cluster.Key) bool {
	return r.Invalid == nil && slices.ContainsFunc(r.Parents, func(p Parent) bool { return p.Service == svc && len(p.Ports) > 0 })
}

func (r *Route) attachesToPort(port model.ServicePort) bool {
	return r.Invalid == nil && slices.ContainsFunc(r.Parents, func(p Parent) bool { return slices.Contains(p.Ports, port) })
}

// routesOf lists the routes that name a Service as parent, HTTPRoutes first.
func (i *Ingest) routesOf(c *memo.Ctx, svc cluster.Key) []model.ObjectRef {
	value := svc.Namespace + "/" + svc.Name
	http, grpc := i.store.HTTPRoutes.By(c, cluster.ByService, value), i.store.GRPCRoutes.By(c, cluster.ByService, value)
	out := make([]model.ObjectRef, 0, len(http)+len(grpc))
	for _, k := range http {
		out = append(out, model.ObjectRef{Kind: KindHTTPRoute, Namespace: k.Namespace, Name: k.Name})
	}
	for _, k := range grpc {
		out = append(out, model.ObjectRef{Kind: KindGRPCRoute, Namespace: k.Namespace, Name: k.Name})
	}
	return out
}

func (i *Ingest) route(c *memo.Ctx, ref model.ObjectRef) *Route {
	key := cluster.Key{Namespace: ref.Namespace, Name: ref.Name}
	b := routeBuilder{i: i, c: c, route: &Route{Ref: ref}}
	switch ref.Kind {
	case KindHTTPRoute:
		r, ok := i.store.HTTPRoutes.Get(c, key)
		if !ok {
			return nil
		}
		b.parents(r.ObjectMeta, r.Spec.ParentRefs)
		b.httpRules(r)
	case KindGRPCRoute:
		r, ok := i.store.GRPCRoutes.Get(c, key)
		if !ok {
			return nil
		}
		b.parents(r.ObjectMeta, r.Spec.ParentRefs)
		b.grpcRules(r)
	default:
		return nil
	}
	b.judge()
	return b.route
}

// routeBuilder gathers what is found while a route is read.
type routeBuilder struct {
	i      *Ingest
	c      *memo.Ctx
	route  *Route
	rules  int      // of the object
	broken []string // what made a rule unusable, for people
	reason gwv1.RouteConditionReason
}

func (b *routeBuilder) parents(m metav1.ObjectMeta, refs []gwv1.ParentReference) {
	b.route.Generation, b.route.Created = m.Generation, m.CreationTimestamp.Time
	for _, ref := range refs {
		if !cluster.IsService(ref.Group, ref.Kind) {
			continue // somebody else's parent
		}
		b.route.Parents = append(b.route.Parents, b.parent(ref))
	}
}

func (b *routeBuilder) parent(ref gwv1.ParentReference) Parent {
	p := Parent{Ref: ref, Service: cluster.Key{Namespace: b.route.Ref.Namespace, Name: string(ref.Name)}}
	if ref.Namespace != nil {
		p.Service.Namespace = string(*ref.Namespace)
	}
	refuse := func(reason gwv1.RouteConditionReason, format string, args ...any) Parent {
		p.Refused = &Verdict{string(reason), fmt.Sprintf(format, args...)}
		return p
	}
	svc := b.i.Service.Get(b.c, p.Service)
	switch {
	case svc == nil:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s does not exist", p.Service)
	case !svc.Enrolled:
		return refuse(ReasonNotEnrolled, "namespace %s is not in the mesh: label it fairway.dev/mesh=enabled", p.Service.Namespace)
	case len(svc.VIPs) == 0:
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no cluster IP, so its clients dial pods directly and no route can apply", p.Service)
	case ref.SectionName != nil:
		return refuse(gwv1.RouteReasonNoMatchingParent, "sectionName is not used with a Service: name a port with parentRef.port")
	}
	for _, port := range svc.Ports {
		if ref.Port != nil && portNumber(*ref.Port) != port.Number {
			continue
		}
		// A route that names no port takes those that speak, or may speak, HTTP; one that names a port means it.
		if ref.Port != nil || port.Protocol != model.ProtocolTCP {
			p.Ports = append(p.Ports, model.ServicePort{Namespace: p.Service.Namespace, Service: p.Service.Name, Port: port.Number})
		}
	}
	if len(p.Ports) > 0 {
		return p
	}
	if ref.Port != nil {
		return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no TCP port %d", p.Service, *ref.Port)
	}
	return refuse(gwv1.RouteReasonNoMatchingParent, "Service %s has no port that speaks HTTP: set appProtocol, or name a port in parentRef.port", p.Service)
}

// judge turns what was found in the rules into verdicts: a route none of whose rules can be used is not accepted, one
// with some bad rules is partially invalid; a bad rule answers 500 and harms no other.
func (b *routeBuilder) judge() {
	if len(b.broken) == 0 {
		return
	}
	v := &Verdict{string(cmp.Or(b.reason, gwv1.RouteReasonUnsupportedValue)), strings.Join(b.broken, "; ")}
	if len(b.broken) >= b.rules {
		b.route.Invalid = v
		return
	}
	b.route.Partial = v
}

func (b *routeBuilder) unresolved(reason gwv1.RouteConditionReason, format string, args ...any) {
	if b.route.Resolved == nil {
		b.route.Resolved = &Verdict{string(reason), fmt.Sprintf(format, args...)}
	}
}

// backend resolves a reference to a Service's port. Whatever is wrong with it, its share of the traffic is answered
// with 500 and nothing else is touched.
func (b *routeBuilder) backend(ref gwv1.BackendObjectReference, weight *int32) model.Backend {
	out := model.Backend{Weight: 1, Invalid: true}
	if weight != nil {
		out.Weight = uint32(max(*weight, 0))
	}
	ns := b.route.Ref.Namespace
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	key := cluster.Key{Namespace: ns, Name: string(ref.Name)}
	if (ref.Group != nil && *ref.Group != "") || (ref.Kind != nil && *ref.Kind != "Service") {
		b.unresolved(gwv1.RouteReasonInvalidKind, "backend %s: only Services of the core group can be backends", ref.Name)
		return out
	}
	if ref.Port == nil {
		b.unresolved(gwv1.RouteReasonUnsupportedValue, "backend %s: a Service needs a port", key)
		return out
	}
	if !b.granted(key) {
		b.unresolved(gwv1.RouteReasonRefNotPermitted, "backend %s is in another namespace: a ReferenceGrant there must allow %ss of namespace %s to refer to Services",
			key, b.route.Ref.Kind, b.route.Ref.Namespace)
		return out
	}
	svc := b.i.Service.Get(b.c, key)
	if svc == nil {
		b.unresolved(gwv1.RouteReasonBackendNotFound, "backend Service %s does not exist", key)
		return out
	}
	out.Port = model.ServicePort{Namespace: ns, Service: key.Name, Port: portNumber(*ref.Port)}
	if _, ok := svc.Port(out.Port.Port); !ok {
		b.unresolved(gwv1.RouteReasonBackendNotFound, "backend Service %s has no TCP port %d", key, *ref.Port)
		return out
	}
	out.Invalid = false
	return out
}

// granted tells whether the route may refer to a Service. A route needs no grant for a Service that is its own parent:
// its callers dialled that Service to begin with.
func (b *routeBuilder) granted(svc cluster.Key) bool {
	if svc.Namespace == b.route.Ref.Namespace {
		return true
	}
	if slices.ContainsFunc(b.route.Parents, func(p Parent) bool { return p.Service == svc }) {
		return true
	}
	for _, k := range b.i.store.Grants.By(b.c, cluster.ByNamespace, svc.Namespace) {
		g, ok := b.i.store.Grants.Get(b.c, k)
		if !ok {
			continue
		}
		from := slices.ContainsFunc(g.Spec.From, func(f gwv1.ReferenceGrantFrom) bool {
			return f.Group == gwv1.GroupName && string(f.Kind) == b.route.Ref.Kind && string(f.Namespace) == b.route.Ref.Namespace
		})
		to := slices.ContainsFunc(g.Spec.To, func(t gwv1.ReferenceGrantTo) bool {
			return t.Group == "" && t.Kind == "Service" && (t.Name == nil || string(*t.Name) == svc.Name)
		})
		if from && to {
			return true
		}
	}
	return false
}
