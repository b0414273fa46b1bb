// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"cmp"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/utils/ptr"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// trafficPolicies are TrafficPolicies. What one asks for holds wherever a waypoint sends to the port; its status is
// about the Service's own waypoint.
func (i *Ingest) trafficPolicies() policyKind[*v1alpha1.TrafficPolicy, model.TrafficPolicy] {
	return policyKind[*v1alpha1.TrafficPolicy, model.TrafficPolicy]{
		in: i.store.TrafficPolicies,
		read: func(p *v1alpha1.TrafficPolicy) (content model.TrafficPolicy, invalid string) {
			return model.TrafficPolicy{Sending: sending(p.Spec)}, ""
		},
		needs: func(c *memo.Ctx, at []model.Attachment) ParentReport {
			out, served := i.atWaypoint(c, at)
			if served {
				for _, a := range at {
					out.Clusters = append(out.Clusters, i.clusterOf(c, a))
				}
			}
			return out
		},
	}
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

// count is nil where none is set.
func count(n *int32) *uint32 {
	if n == nil {
		return nil
	}
	out := uint32(max(*n, 0)) //nolint:gosec // it is no less than 0
	return &out
}

// durationOf is nil where none is set.
func durationOf(d *metav1.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	return &d.Duration
}
