// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
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
	UID        types.UID
	Generation int64
	Created    time.Time
	Parents    []Parent
	Rules      []model.Rule // flattened, in the order of the object
	// Resolved, Partial and Invalid become conditions.
	Resolved, Partial, Invalid *Verdict
	// Notes tell people what the route does otherwise than they may think.
	Notes []string
}

// Verdict is the reason and message of a condition that something went wrong for.
type Verdict struct {
	Reason  string
	Message string
}

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
		b.hostnames(r.Spec.Hostnames)
		b.httpRules(r)
	case KindGRPCRoute:
		r, ok := i.store.GRPCRoutes.Get(c, key)
		if !ok {
			return nil
		}
		b.parents(r.ObjectMeta, r.Spec.ParentRefs)
		b.hostnames(r.Spec.Hostnames)
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

// hostnames mean nothing to a mesh (GEP-1294, "hostnames field").
func (b *routeBuilder) hostnames(h []gwv1.Hostname) {
	if len(h) > 0 {
		b.note("spec.hostnames has no effect in a mesh: match the header Host instead")
	}
}

func (b *routeBuilder) note(text string) {
	if !slices.Contains(b.route.Notes, text) {
		b.route.Notes = append(b.route.Notes, text)
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
		b.route.Invalid = &Verdict{reason, strings.Join(b.broken, "; ")}
		return
	}
	// "Dropped Rule" is how the API wants this message to begin.
	b.route.Partial = &Verdict{reason, "Dropped " + strings.Join(b.broken, "; dropped ")}
}
