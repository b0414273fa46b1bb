// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

// trafficPolicies are TrafficPolicies. What one asks for is the most connections of a port.
func (i *Ingest) trafficPolicies() policyKind[*v1alpha1.TrafficPolicy, uint32] {
	return policyKind[*v1alpha1.TrafficPolicy, uint32]{
		in: i.store.TrafficPolicies,
		read: func(p *v1alpha1.TrafficPolicy) (most uint32, invalid string) {
			return uint32(max(p.Spec.MaxConnections, 0)), "" //nolint:gosec // it is no less than 0
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
