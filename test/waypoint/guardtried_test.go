// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestGuardsThatAreTried refuse nothing; what they would refuse is logged and counted, and so is what others refuse.
func TestGuardsThatAreTried(t *testing.T) {
	s := newShop(t)
	tried := func(p model.AccessPolicy) model.AccessPolicy {
		p.DryRun = true
		return p
	}
	dialled := s.guard(onRequests(
		tried(accessPolicy("tried", true, fromAccount("", pathIs(model.MatchPrefix, "/tried")))),
		accessPolicy("real", true, fromAccount("", pathIs(model.MatchPrefix, "/real"))),
	))
	c := s.caller(clientID).client(t, dialled, nil)
	for path, want := range map[string]int{"/": 200, "/tried": 200, "/real": 403} {
		require.Equal(t, want, do(t, c, "GET", "http://web"+path).status)
	}
	do(t, c, "GET", "http://web/tried")
	s.accessLog(map[string]any{"path": "/real", "detail": "rbac_access_denied_matched_policy[DENY_shop/real_rule_0]"})
	const cluster = `envoy_cluster_name="service/shop/web/80"`
	for _, want := range []string{
		`policy_denied{policy="DENY shop/real rule 0",` + cluster + "} 1",
		`policy_shadow_denied{policy="DENY shop/real rule 0",` + cluster + "} 1",
		`policy_shadow_denied{policy="DENY shop/tried rule 0",` + cluster + "} 2",
		`denied{` + cluster + "} 1",
		`shadow_denied{` + cluster + "} 3",
	} {
		eventually.True(t, want, func() bool {
			return strings.Contains(s.ask("/stats/prometheus"), "envoy_cluster_rbac_"+want)
		})
	}
}

// TestTriedRequestsAreTold: of each request that would have been refused the access log says by whom, and the agent
// counts it; of those that are refused, or that nobody tries to refuse, neither hears as such.
func TestTriedRequestsAreTold(t *testing.T) {
	s := newShop(t)
	tried := func(p model.AccessPolicy) model.AccessPolicy {
		p.DryRun = true
		return p
	}
	guards := onRequests(
		tried(accessPolicy("tried", true, fromAccount("", pathIs(model.MatchPrefix, "/tried")))),
		accessPolicy("real", true, fromAccount("", pathIs(model.MatchPrefix, "/real"))),
	)
	client := s.caller(clientID).client(t, s.guard(guards), nil)
	for _, path := range []string{"/", "/tried", "/tried", "/real"} {
		do(t, client, "GET", "http://web"+path)
	}
	s.accessLog(map[string]any{"path": "/tried", "dryrun": "DENY shop/tried rule 0", "status": float64(200)})
	s.accessLog(map[string]any{"path": "/", "dryrun": nil})

	s.guard(onRequests(tried(accessPolicy("expression", false, model.AccessRule{
		Request: &model.AccessRequest{CEL: `request.path.startsWith("/open")`},
	}))))
	for _, path := range []string{"/open", "/closed"} {
		require.Equal(t, 200, do(t, client, "GET", "http://web"+path).status)
	}
	want := map[counts.Series]uint64{
		{Kind: counts.Tried, Destination: "service/shop/web/80", Verdict: "DENY shop/tried rule 0", Requests: true}: 2,
		{Kind: counts.Tried, Destination: "service/shop/web/80", Verdict: counts.ByExpressions, Requests: true}:     1,
	}
	eventually.Passes(t, "the agent counts them", func(look require.TestingT) {
		have := map[counts.Series]uint64{}
		for _, c := range s.counter.Take(true) {
			have[c.Series] = c.Value
			require.Equal(look, clientID, c.Caller)
		}
		require.Equal(look, want, have)
	})
}
