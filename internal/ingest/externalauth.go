// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	"k8s.io/utils/ptr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// authTimeout is how long an authorization service has for its answer. The API has no field for it; Envoy's own 200 ms
// would refuse callers whenever the service asks a slow database.
const authTimeout = 5 * time.Second

// externalAuth reads whom to ask about requests, and what to show. Where nobody can be asked, none pass.
func (b *routeBuilder) externalAuth(in *gwv1.HTTPExternalAuthFilter) *model.ExternalAuth {
	to := b.backend(in.BackendRef, nil, b.asked)
	out := &model.ExternalAuth{
		Service: to.Port, Invalid: to.Invalid, TLS: to.TLS, Timeout: authTimeout,
		GRPC: in.ExternalAuthProtocol == gwv1.HTTPRouteExternalAuthGRPCProtocol,
	}
	if out.GRPC && in.GRPCAuthConfig != nil {
		out.Shown = in.GRPCAuthConfig.AllowedRequestHeaders
	}
	if h := in.HTTPAuthConfig; !out.GRPC && h != nil {
		out.Path, out.Shown, out.Taken = h.Path, h.AllowedRequestHeaders, h.AllowedResponseHeaders
	}
	if in.ForwardBody != nil {
		out.MaxBody = uint32(in.ForwardBody.MaxSize)
	}
	if out.GRPC && !out.Invalid {
		if bad := b.i.undeclaredHTTP2(b.c, out.Service, "ExternalAuth with protocol GRPC"); bad != nil {
			out.Invalid = true
			b.noteUnresolved(gwv1.RouteConditionReason(bad.Reason), "%s", bad.Message)
		}
	}
	return out
}

// unaskableBy is about the first of a route's authorization services that the waypoint of a port may not ask.
func (i *Ingest) unaskableBy(c *memo.Ctx, rules []model.Rule, at model.ServicePort) *Verdict {
	for _, r := range rules {
		if a := r.ExternalAuth(); a != nil && !a.Invalid {
			if why := i.unaskable(c, at, a.Service, r.Source.Namespace); why != "" {
				return unasking(why, unaskedMeans(*a))
			}
		}
	}
	return nil
}

// askable are guards whose services are known to be askable by the waypoint of the table, or not to be.
func (b *guardBuilder) askable(guards []model.Guard) []model.Guard {
	out := guards
	for n, g := range guards {
		for m, a := range g.Asked {
			// Those who ask are the policies of the pods that the guard is of, which are of one namespace.
			if a.Unasked() || b.i.unaskable(b.c, b.at, a.Service, g.Authentication[0].Namespace) == "" {
				continue
			}
			if &out[0] == &guards[0] {
				out = slices.Clone(guards)
			}
			if &out[n].Asked[0] == &g.Asked[0] {
				out[n].Asked = slices.Clone(g.Asked)
			}
			out[n].Asked[m].Refused = true
		}
	}
	return out
}

// unaskedBy says why a service of an AuthenticationPolicy isn't asked about requests to a port: guards keep the
// waypoint from asking, or other policies of the same pods want another one to be asked.
func (i *Ingest) unaskedBy(c *memo.Ctx, at model.ServicePort, a model.ExternalAuth) *Verdict {
	if len(model.Asked(i.guardsOf(c, at))) > 1 {
		return &Verdict{Reason: string(gwv1.PolicyReasonConflicted), Message: fmt.Sprintf(
			"policies of several Services with the same pods as Service %s have different services asked, and requests are "+
				"refused: have one asked by all", at.ServiceName())}
	}
	if why := i.unaskable(c, at, a.Service, at.Namespace); why != "" {
		return unasking(why, unaskedMeans(a))
	}
	return nil
}

// unaskedMeans says what becomes of requests that nobody is asked about.
func unaskedMeans(a model.ExternalAuth) string {
	if a.Open {
		return "requests pass unasked"
	}
	return "requests are answered 503"
}

// externalAuthorization is whom a policy of a namespace has asked, why that can't be asked, and why the policy can't be
// carried out; "" if it can.
func (i *Ingest) externalAuthorization(
	c *memo.Ctx, namespace string, e *v1alpha1.ExternalAuthorization,
) (out *model.ExternalAuth, unresolved *Verdict, invalid string) {
	out = &model.ExternalAuth{
		GRPC: e.Protocol == v1alpha1.ExternalAuthorizationByGRPC, Open: e.FailureMode == v1alpha1.FailureModeOpen,
		Timeout: cmp.Or(ptr.Deref(durationOf(e.Timeout), 0), authTimeout),
	}
	if out.GRPC && e.GRPC != nil {
		out.Shown = e.GRPC.AllowedHeaders
	}
	if h := e.HTTP; !out.GRPC && h != nil {
		out.Path, out.Shown, out.Taken = h.Path, h.AllowedHeaders, h.AllowedResponseHeaders
	}
	if e.ForwardBody != nil {
		out.MaxBody = *count(&e.ForwardBody.MaxSize)
	}
	if _, err := i.check(model.Rule{Filters: []model.Filter{{ExternalAuth: out}}}); err != nil {
		return nil, nil, "externalAuthorization: " + strings.TrimPrefix(err.Error(), "externalAuth: ")
	}
	out.Service, unresolved = i.referredPort(c, cluster.NameOf((*v1alpha1.AuthenticationPolicy)(nil)), namespace,
		e.BackendRef)
	if unresolved == nil && out.GRPC {
		unresolved = i.undeclaredHTTP2(c, out.Service, "protocol GRPC")
	}
	if unresolved != nil {
		unresolved.Message = fmt.Sprintf("externalAuthorization: %s; until then %s", unresolved.Message, unaskedMeans(*out))
		out.Service, out.Invalid = model.ServicePort{}, true
	}
	out.TLS = !out.Invalid && i.SpeaksTLS.Get(c, out.Service)
	return out, unresolved, ""
}
