// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"time"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/utils/ptr"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// defaultLimitTimeout leaves a service time for a database of its own, which Envoy's own 20 ms may not.
const defaultLimitTimeout = 100 * time.Millisecond

// globalLimit of a policy in a namespace, and why its service can't be asked.
func (i *Ingest) globalLimit(
	c *memo.Ctx, namespace string, g *v1alpha1.GlobalRateLimit,
) (*model.GlobalLimit, *Verdict) {
	out := &model.GlobalLimit{
		Domain: g.Domain, Closed: g.FailureMode == v1alpha1.FailureModeClosed,
		Timeout: cmp.Or(ptr.Deref(durationOf(g.Timeout), 0), defaultLimitTimeout),
	}
	for _, d := range g.Descriptors {
		var entries []model.LimitEntry
		for _, e := range d.Entries {
			entries = append(entries, model.LimitEntry{Key: e.Key, Header: deref(e.Header), Value: deref(e.Value)})
		}
		out.Descriptors = append(out.Descriptors, entries)
	}
	port, bad := i.limiter(c, namespace, g.BackendRef)
	if bad != nil {
		bad.Message = fmt.Sprintf("rateLimit.global: %s; until then %s", bad.Message, withoutLimit(*out))
	}
	out.Service, out.Invalid = port, bad != nil
	out.TLS = bad == nil && i.SpeaksTLS.Get(c, port)
	return out, bad
}

// withoutLimit is what happens where the service isn't asked.
func withoutLimit(l model.GlobalLimit) string {
	if l.Closed {
		return "requests are answered 503"
	}
	return "requests pass as if there were no rateLimit.global"
}

// askableLimit of a port is as if its service never answered, where guards don't let the waypoint ask.
func (i *Ingest) askableLimit(c *memo.Ctx, at model.ServicePort, l *model.GlobalLimit) *model.GlobalLimit {
	if l == nil || l.Invalid || i.unaskable(c, at, l.Service, at.Namespace) == "" {
		return l
	}
	out := *l
	out.Invalid = true
	return &out
}

// limiter is the port of the Service that a policy has asked, or why it can't be.
func (i *Ingest) limiter(
	c *memo.Ctx, namespace string, ref gwv1.BackendObjectReference,
) (port model.ServicePort, bad *Verdict) {
	port, bad = i.referredPort(c, cluster.NameOf((*v1alpha1.TrafficPolicy)(nil)), namespace, ref)
	if bad == nil && i.protocolOf.Get(c, model.Attachment{Port: port}) != model.ProtocolHTTP2 {
		return model.ServicePort{}, &Verdict{
			Reason: string(gwv1.RouteReasonUnsupportedProtocol), Message: notHTTP2(port, "gRPC"),
		}
	}
	return port, bad
}

// referredPort is the port of a Service that a policy of a kind and namespace refers to, or why it can't. What the port
// speaks is not asked, for that may depend on policies.
func (i *Ingest) referredPort(
	c *memo.Ctx, kind, namespace string, ref gwv1.BackendObjectReference,
) (port model.ServicePort, bad *Verdict) {
	refuse := func(reason gwv1.RouteConditionReason, format string, args ...any) (model.ServicePort, *Verdict) {
		return model.ServicePort{}, &Verdict{Reason: string(reason), Message: fmt.Sprintf(format, args...)}
	}
	key := cluster.Key{Namespace: string(ptr.Deref(ref.Namespace, gwv1.Namespace(namespace))), Name: string(ref.Name)}
	by := policy.Object{
		GroupKind:      schema.GroupKind{Group: v1alpha1.GroupVersion.Group, Kind: kind},
		NamespacedName: cluster.Key{Namespace: namespace},
	}
	switch {
	case ptr.Deref(ref.Group, "") != "" || ptr.Deref(ref.Kind, "Service") != "Service":
		return refuse(gwv1.RouteReasonInvalidKind, "backend %s: only Services of the core group can be asked", ref.Name)
	case ref.Port == nil:
		return refuse(gwv1.RouteReasonUnsupportedValue, "backend %s has no port: a reference to a Service needs one", key)
	case key.Namespace != namespace && !i.permitted(c, by, policy.Object{GroupKind: policy.Service, NamespacedName: key}):
		return refuse(gwv1.RouteReasonRefNotPermitted, "backend %s is in another namespace: a ReferenceGrant there must "+
			"allow the kind %s of namespace %s to refer to Services", key, by.Kind, namespace)
	}
	port = model.ServicePort{Namespace: key.Namespace, Service: key.Name, Port: portNumber(*ref.Port)}
	svc := i.Service.Get(c, key)
	switch {
	case svc == nil:
		return refuse(gwv1.RouteReasonBackendNotFound, "backend Service %s does not exist", key)
	case svc.External:
		return refuse(gwv1.RouteReasonBackendNotFound,
			"backend Service %s is of type ExternalName, which has no endpoints: use a Service with endpoints", key)
	}
	if _, ok := svc.Port(port.Port); !ok {
		return refuse(gwv1.RouteReasonBackendNotFound, "backend Service %s has no TCP port %d", key, port.Port)
	}
	return port, nil
}
