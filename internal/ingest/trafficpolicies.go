// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

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

func sending(s v1alpha1.TrafficPolicySpec) (out model.Sending) {
	if b := s.LoadBalancing; b != nil {
		out.Balancing = &model.Balancing{Type: model.BalancingType(b.Type)}
		switch by := b.HashBy; {
		case by == nil:
		case by.Cookie != nil:
			out.Balancing.Cookie, out.Balancing.CookieTTL = by.Cookie.Name, durationOf(by.Cookie.TTL)
		case by.Header != nil:
			out.Balancing.Header = by.Header.Name
		}
	}
	return out
}

// durationOf is nil where none is set.
func durationOf(d *metav1.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	return &d.Duration
}
