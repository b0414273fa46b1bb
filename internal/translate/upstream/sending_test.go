// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/fairway-mesh/fairway/internal/model"
)

// policiesCase has a cluster for each thing that a TrafficPolicy can ask for.
func policiesCase() bundle {
	var out []*clusterv3.Cluster
	for n, s := range []model.Sending{
		{Balancing: &model.Balancing{Type: model.BalanceRoundRobin}},
		{Balancing: &model.Balancing{Type: model.BalanceLeastRequest}},
		{Balancing: &model.Balancing{Type: model.BalanceRandom}},
		{Balancing: &model.Balancing{Type: model.BalanceRingHash, Header: "X-User"}},
		{Balancing: &model.Balancing{Type: model.BalanceRingHash, Cookie: "user"}},
		{Balancing: &model.Balancing{Type: model.BalanceMaglev, Cookie: "user", CookieTTL: new(time.Hour)}},
		{Balancing: &model.Balancing{Type: model.BalanceRingHash}},
		{Limits: model.SendingLimits{Connections: new(uint32(10)), Retries: new(uint32(0))}},
		{Limits: model.SendingLimits{Pending: new(uint32(20)), Requests: new(uint32(1 << 20))}},
		{Outliers: &model.Outliers{Consecutive5xx: 3, MaxPercent: 50}},
		{Outliers: &model.Outliers{
			ConsecutiveGatewayErrors: 2, MaxPercent: 100, Interval: time.Second, EjectionTime: time.Hour,
		}},
		{Kept: model.Kept{ConnectTimeout: time.Second, IdleTimeout: time.Minute, MaxDuration: time.Hour}},
		{Kept: model.Kept{Keepalive: model.Keepalive{Time: time.Minute, Interval: time.Second, Probes: 5}}},
		{Kept: model.Kept{Keepalive: model.Keepalive{Probes: 1}}},
	} {
		port := web
		port.Port = uint16(1 + n)
		u := model.Upstream{ServicePort: port, Protocol: model.ProtocolHTTP, ClientIP: true, Sending: s}
		out = append(out, ServicePort(u, waypointID, headers))
	}
	return bundle{clusters: out}
}
