// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"fmt"
	"reflect"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// trafficPolicy is what a TrafficPolicy asks for, and what of it can't be found.
type trafficPolicy struct {
	model.TrafficPolicy
	unresolved *Verdict
}

// trafficPolicies are TrafficPolicies. What one says of sending holds wherever a waypoint sends to the port, and what
// it says of requests at the Service's own waypoint, which its status is about.
func (i *Ingest) trafficPolicies() policyKind[*v1alpha1.TrafficPolicy, trafficPolicy] {
	return policyKind[*v1alpha1.TrafficPolicy, trafficPolicy]{
		in: i.store.TrafficPolicies,
		read: func(c *memo.Ctx, p *v1alpha1.TrafficPolicy) (out trafficPolicy, invalid string) {
			out.Sending, out.Requests = sending(p.Spec), requests(p.Spec)
			if r := p.Spec.RateLimit; r != nil && r.Global != nil {
				out.Requests.GlobalLimit, out.unresolved = i.globalLimit(c, p.Namespace, r.Global)
			}
			return out, ""
		},
		needs:   i.trafficNeeds,
		besides: i.affordableTraffic,
	}
}

// TrafficPolicyAt names the policy that is in force for a port of a Service; "" if none is.
func (i *Ingest) TrafficPolicyAt(c *memo.Ctx, port model.ServicePort) string {
	if p := i.traffic.InForce.Get(c, model.Attachment{Port: port}); p != nil {
		return p.Ref.Namespace + "/" + p.Ref.Name
	}
	return ""
}

func (i *Ingest) trafficNeeds(c *memo.Ctx, at []model.Attachment) ParentReport {
	out, served := i.atWaypoint(c, at)
	if !served {
		return out
	}
	for _, a := range at {
		out.Clusters = append(out.Clusters, i.clusterOf(c, a))
		if i.protocolOf.Get(c, a).HTTP() {
			out.Attachments = append(out.Attachments, a)
		}
	}
	asked := i.traffic.InForce.Get(c, at[0]).Content
	switch {
	case len(out.Attachments) == 0 && !reflect.DeepEqual(asked.Requests, model.Requests{}):
		out.Unprogrammed = &Verdict{Reason: v1alpha1.PolicyReasonNotRequests, Message: fmt.Sprintf(
			"no port of Service %s that the policy is in force for is HTTP, which rateLimit, faults, buffering and "+
				"compression need; the rest of the policy is in force", at[0].Port.ServiceName())}
	case asked.unresolved != nil:
		out.Unprogrammed = asked.unresolved
	case asked.Requests.GlobalLimit != nil:
		limit := asked.Requests.GlobalLimit
		if why := i.unaskable(c, at[0].Port, limit.Service, at[0].Port.Namespace); why != "" {
			out.Unprogrammed = unasking("rateLimit.global: "+why, withoutLimit(*limit))
			break
		}
		out.Backends = append(out.Backends, i.clusterName(c, limit.Service))
	}
	return out
}

// defaultEjectionPercent lets one of two endpoints be left out, which Envoy's own 10 would not.
const defaultEjectionPercent = 50

func sending(s v1alpha1.TrafficPolicySpec) model.Sending {
	out := model.Sending{Balancing: balancing(s.LoadBalancing), Kept: kept(s.Connection)}
	if b := s.CircuitBreaking; b != nil {
		out.Limits = model.SendingLimits{
			Connections: count(b.MaxConnections), Pending: count(b.MaxPendingRequests), Requests: count(b.MaxRequests),
			Retries: count(b.MaxRetries),
		}
	}
	if o := s.OutlierDetection; o != nil {
		out.Outliers = &model.Outliers{
			Consecutive5xx:           ptr.Deref(count(o.Consecutive5xx), 0),
			ConsecutiveGatewayErrors: ptr.Deref(count(o.ConsecutiveGatewayErrors), 0),
			Interval:                 ptr.Deref(durationOf(o.Interval), 0),
			EjectionTime:             ptr.Deref(durationOf(o.BaseEjectionTime), 0),
			MaxPercent:               cmp.Or(ptr.Deref(count(o.MaxEjectionPercent), 0), defaultEjectionPercent),
		}
	}
	return out
}

func balancing(b *v1alpha1.LoadBalancing) *model.Balancing {
	if b == nil {
		return nil
	}
	out := &model.Balancing{Type: model.BalancingType(b.Type)}
	switch by := b.HashBy; {
	case by == nil:
	case by.Cookie != nil:
		out.Cookie, out.CookieTTL = by.Cookie.Name, durationOf(by.Cookie.TTL)
	case by.Header != nil:
		out.Header = by.Header.Name
	}
	return out
}

func kept(in *v1alpha1.Connection) (out model.Kept) {
	if in == nil {
		return out
	}
	out.ConnectTimeout = ptr.Deref(durationOf(in.ConnectTimeout), 0)
	out.IdleTimeout = ptr.Deref(durationOf(in.IdleTimeout), 0)
	out.MaxDuration = ptr.Deref(durationOf(in.MaxConnectionDuration), 0)
	if k := in.TCPKeepalive; k != nil {
		out.Keepalive = model.Keepalive{
			Time: ptr.Deref(durationOf(k.Time), 0), Interval: ptr.Deref(durationOf(k.Interval), 0),
			Probes: ptr.Deref(count(k.Probes), 0),
		}
	}
	return out
}

// units of rate limits.
var units = map[v1alpha1.RateLimitUnit]time.Duration{
	v1alpha1.RateLimitSecond: time.Second, v1alpha1.RateLimitMinute: time.Minute, v1alpha1.RateLimitHour: time.Hour,
}

func requests(s v1alpha1.TrafficPolicySpec) (out model.Requests) {
	if s.RateLimit != nil && s.RateLimit.Local != nil {
		l := s.RateLimit.Local
		out.LocalLimit = &model.LocalLimit{Requests: *count(&l.Requests), Unit: units[l.Unit]}
	}
	if f := s.Faults; f != nil && f.Delay != nil {
		out.Delay = &model.Delay{For: f.Delay.Fixed.Duration, Percent: ptr.Deref(count(f.Delay.Percent), 100)}
	}
	if f := s.Faults; f != nil && f.Abort != nil {
		out.Abort = &model.Abort{Status: *count(&f.Abort.Status), Percent: ptr.Deref(count(f.Abort.Percent), 100)}
	}
	if b := s.Buffering; b != nil {
		out.MaxBytes = ptr.Deref(count(b.MaxRequestKiB), 0) << 10
		out.MaxAnswerBytes = ptr.Deref(count(b.MaxResponseKiB), 0) << 10
	}
	if s.Compression != nil {
		for _, a := range s.Compression.Algorithms {
			out.Compression = append(out.Compression, model.Compression(a))
		}
	}
	return out
}

// count is nil where none is set.
func count(n *int32) *uint32 {
	if n == nil {
		return nil
	}
	out := uint32(max(*n, 0))
	return &out
}

// durationOf is nil where none is set.
func durationOf(d *metav1.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	return &d.Duration
}
