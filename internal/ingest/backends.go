// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"slices"

	"k8s.io/apimachinery/pkg/runtime/schema"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// noteUnresolved notes a backend that can't be used. The condition has one reason, that of the first, and says all.
func (b *routeBuilder) noteUnresolved(reason gwv1.RouteConditionReason, format string, args ...any) {
	message := fmt.Sprintf(format, args...)
	r := b.route.resolved
	switch {
	case r == nil:
		b.route.resolved = &Verdict{Reason: string(reason), Message: message}
	case !slices.Contains(b.unresolvedMessages, message):
		r.Message += "; " + message
	default:
		return
	}
	b.unresolvedMessages = append(b.unresolvedMessages, message)
}

// backend resolves a reference to a Service's port. Whatever is wrong with it, its share of the traffic is answered
// with 500 and nothing else is touched. Who may be referred to depends on what for: sent or asked.
func (b *routeBuilder) backend(
	ref gwv1.BackendObjectReference, weight *int32, granted func(svc cluster.Key) bool,
) model.Backend {
	out := invalidBackend(weight)
	key := cluster.Key{Namespace: b.route.ref.Namespace, Name: string(ref.Name)}
	if ref.Namespace != nil {
		key.Namespace = string(*ref.Namespace)
	}
	if _, external := cluster.XBackendOf(key.Namespace, ref); external {
		b.noteUnresolved(gwv1.RouteReasonInvalidKind,
			"backend XBackend %s: requests leave the cluster by backendRefs only, and by no filter", key)
		return out
	}
	if (ref.Group != nil && *ref.Group != "") || (ref.Kind != nil && *ref.Kind != "Service") {
		b.noteUnresolved(gwv1.RouteReasonInvalidKind, "backend %s: only Services of the core group can be backends", ref.Name)
		return out
	}
	if ref.Port == nil {
		b.noteUnresolved(gwv1.RouteReasonUnsupportedValue, "backend %s has no port: a reference to a Service needs one", key)
		return out
	}
	if !granted(key) {
		b.noteUnresolved(gwv1.RouteReasonRefNotPermitted,
			"backend %s is in another namespace: a ReferenceGrant there must allow %ss of namespace %s to refer to Services",
			key, b.route.ref.Kind, b.route.ref.Namespace)
		return out
	}
	svc := b.i.Service.Get(b.c, key)
	if svc == nil {
		b.noteUnresolved(gwv1.RouteReasonBackendNotFound, "backend Service %s does not exist", key)
		return out
	}
	if svc.External {
		// The API leaves the type to implementations, and GEP-1294 advises against it: the name could lead anywhere.
		b.noteUnresolved(gwv1.RouteReasonUnsupportedValue,
			"backend Service %s is of type ExternalName, which has no endpoints: use a Service with endpoints", key)
		return out
	}
	out.Port = model.ServicePort{Namespace: key.Namespace, Service: key.Name, Port: portNumber(*ref.Port)}
	port, ok := svc.Port(out.Port.Port)
	switch {
	case !ok:
		b.noteUnresolved(gwv1.RouteReasonBackendNotFound, "backend Service %s has no TCP port %d", key, *ref.Port)
	case port.Protocol == model.ProtocolTLS && !b.i.SpeaksTLS.Get(b.c, out.Port):
		b.noteUnresolved(gwv1.RouteReasonUnsupportedProtocol,
			"backend Service %s expects TLS on port %d, but waypoints send plain HTTP: use a port that accepts it, or a "+
				"BackendTLSPolicy", key, *ref.Port)
	default:
		out.Invalid, out.TLS = false, b.i.SpeaksTLS.Get(b.c, out.Port)
	}
	return out
}

// invalidBackend has its share of the traffic.
func invalidBackend(weight *int32) model.Backend {
	out := model.Backend{Weight: 1, Invalid: true}
	if weight != nil {
		out.Weight = uint32(max(*weight, 0))
	}
	return out
}

// sent tells whether the route may have requests sent to a Service. It needs no grant for one that is its only parent:
// its callers dialled that Service to begin with. With a second parent, requests to that one would come to it, too.
func (b *routeBuilder) sent(svc cluster.Key) bool { return b.route.onlyParent(svc) || b.asked(svc) }

// asked tells whether the route may have a Service asked. Its callers never dialled it to ask, for it is the waypoint
// that does; so it needs a grant for its parent, too.
func (b *routeBuilder) asked(svc cluster.Key) bool {
	return svc.Namespace == b.route.ref.Namespace ||
		b.i.permitted(b.c, b.asReferrer(), policy.Object{GroupKind: policy.Service, NamespacedName: svc})
}

// asReferrer is the route as ReferenceGrants know it.
func (b *routeBuilder) asReferrer() policy.Object {
	return policy.Object{
		GroupKind:      schema.GroupKind{Group: gwv1.GroupName, Kind: b.route.ref.Kind},
		NamespacedName: cluster.Key{Namespace: b.route.ref.Namespace},
	}
}

// permitted tells whether a ReferenceGrant lets objects of a kind and namespace refer to an object of another one.
func (i *Ingest) permitted(c *memo.Ctx, by, to policy.Object) bool {
	for _, k := range i.store.Grants.By(c, cluster.ByNamespace, to.Namespace) {
		g, ok := i.store.Grants.Get(c, k)
		if !ok {
			continue
		}
		from := slices.ContainsFunc(g.Spec.From, func(f gwv1.ReferenceGrantFrom) bool {
			return string(f.Group) == by.Group && string(f.Kind) == by.Kind && string(f.Namespace) == by.Namespace
		})
		it := slices.ContainsFunc(g.Spec.To, func(t gwv1.ReferenceGrantTo) bool {
			return string(t.Group) == to.Group && string(t.Kind) == to.Kind && (t.Name == nil || string(*t.Name) == to.Name)
		})
		if from && it {
			return true
		}
	}
	return false
}
