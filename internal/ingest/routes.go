// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Kinds of routes.
const (
	KindHTTPRoute = "HTTPRoute"
	kindGRPCRoute = "GRPCRoute"
)

// ReportRef names an object that there is a Report on, a route, a policy or an XBackend; ok is false for any other.
func ReportRef(obj client.Object) (ref model.ObjectRef, ok bool) {
	switch obj.(type) {
	case *gwv1.HTTPRoute, *gwv1.GRPCRoute, *gwxv1alpha1.XBackend:
	default:
		if _, ok := cluster.PolicyOf(obj); !ok {
			return ref, false
		}
	}
	return model.ObjectRef{Kind: cluster.NameOf(obj), Namespace: obj.GetNamespace(), Name: obj.GetName()}, true
}

// Route is an HTTPRoute or GRPCRoute with everything decided that can be decided from it, its parents and its
// backends. What other routes do to it (conflicts) is decided by the route table of each port.
type Route struct {
	ref        model.ObjectRef
	uid        types.UID
	generation int64
	created    time.Time
	parents    []parent
	Rules      []model.Rule // flattened, in the order of the object
	// externals are the XBackends that the rules name and may use, whatever may be wrong with these.
	externals []cluster.Key
	// resolved, partial and invalid become conditions.
	resolved, partial, invalid *Verdict
	// notes tell people what the route does otherwise than they may think.
	notes []string
	// rejected are the HTTPExtensions of rules that proxies reject, by name.
	rejected map[string]rejectedExtension
}

// Verdict says why something can't be done as it was asked for.
type Verdict = conditions.Verdict

// routesOf lists the routes that name a Service as parent, HTTPRoutes first.
func (i *Ingest) routesOf(c *memo.Ctx, svc cluster.Key) []model.ObjectRef {
	return i.routesBy(c, cluster.ByService, svc.Namespace+"/"+svc.Name)
}

// routesFor lists a consumer's routes, HTTPRoutes first.
func (i *Ingest) routesFor(c *memo.Ctx, k consumer) []model.ObjectRef {
	return i.routesBy(c, cluster.ByConsumer, k.author+"/"+k.owner)
}

func (i *Ingest) routesBy(c *memo.Ctx, index, value string) []model.ObjectRef {
	http, grpc := i.store.HTTPRoutes.By(c, index, value), i.store.GRPCRoutes.By(c, index, value)
	out := make([]model.ObjectRef, 0, len(http)+len(grpc))
	add := func(kind string, keys []cluster.Key) {
		for _, k := range keys {
			out = append(out, model.ObjectRef{Kind: kind, Namespace: k.Namespace, Name: k.Name})
		}
	}
	add(KindHTTPRoute, http)
	add(kindGRPCRoute, grpc)
	return out
}

func (i *Ingest) route(c *memo.Ctx, ref model.ObjectRef) *Route {
	key := cluster.Key{Namespace: ref.Namespace, Name: ref.Name}
	b := routeBuilder{i: i, c: c, route: &Route{ref: ref}}
	switch ref.Kind {
	case KindHTTPRoute:
		r, ok := i.store.HTTPRoutes.Get(c, key)
		if !ok {
			return nil
		}
		b.about(r.ObjectMeta, r.Spec.ParentRefs, r.Spec.Hostnames)
		b.httpRules(r)
	case kindGRPCRoute:
		r, ok := i.store.GRPCRoutes.Get(c, key)
		if !ok {
			return nil
		}
		b.about(r.ObjectMeta, r.Spec.ParentRefs, r.Spec.Hostnames)
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
	shut   bool // proxies reject a match

	unresolvedMessages []string
}

// about reads what routes of all kinds have.
func (b *routeBuilder) about(m metav1.ObjectMeta, parents []gwv1.ParentReference, hostnames []gwv1.Hostname) {
	b.route.uid, b.route.generation, b.route.created = m.UID, m.Generation, m.CreationTimestamp.Time
	b.parents(parents)
	if len(hostnames) > 0 { // GEP-1294, "hostnames field"
		b.note("spec.hostnames has no effect in a mesh: match the Host header instead")
	}
}

func (b *routeBuilder) note(text string) {
	if !slices.Contains(b.route.notes, text) {
		b.route.notes = append(b.route.notes, text)
	}
}

// judge turns what was found in the rules into verdicts. A route none of whose rules can be used is not accepted, one
// with some bad rules is partially invalid. Either way it keeps its ports: what matches a bad rule is answered with an
// error and never goes on as if there were no rule, and what matches nothing gets 404.
func (b *routeBuilder) judge() {
	if len(b.broken) == 0 {
		return
	}
	if b.shut {
		b.shutDown()
	}
	reason := string(cmp.Or(b.reason, gwv1.RouteReasonUnsupportedValue))
	if b.shut || len(b.broken) >= b.rules {
		b.route.invalid = &Verdict{Reason: reason, Message: strings.Join(b.broken, "; ")}
		return
	}
	// "Dropped Rule" is how the API wants this message to begin.
	b.route.partial = &Verdict{Reason: reason, Message: "Dropped " + strings.Join(b.broken, "; dropped ")}
}
