// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/runtime/schema"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/cluster/policytest"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestPoliciesAreFoundByWhatTheyName, and read again when their status has less room.
func TestPoliciesAreFoundByWhatTheyName(t *testing.T) {
	graph := memo.New()
	policies := cluster.NewPolicies[*gwv1.BackendTLSPolicy](graph)
	web := cluster.Key{Namespace: "shop", Name: "web"}
	naming := memo.Define(graph, "naming", func(a, b int) bool { return a == b }, func(c *memo.Ctx, _ struct{}) int {
		return len(policies.By(c, cluster.ByTarget, cluster.TargetValue(schema.GroupKind{Kind: "Service"}, web)))
	})
	taken := memo.Define(graph, "taken", func(a, b int) bool { return a == b }, func(c *memo.Ctx, key cluster.Key) int {
		p, ok := policies.Get(c, key)
		if !ok {
			return -1
		}
		return cluster.TakenByOthers(p)
	})
	policy := policytest.For("shop", "a", 1, [2]string{"web", "http"}, [2]string{"web", "metrics"}, [2]string{"api", ""})
	policies.Set(policy)
	policies.Set(policytest.For("other", "b", 1, [2]string{"web", ""}))
	require.Equal(t, 1, naming.Get(nil, struct{}{}))
	key := cluster.Key{Namespace: "shop", Name: "a"}
	require.Zero(t, taken.Get(nil, key))

	said := policy.DeepCopy()
	said.Status.Ancestors = []gwv1.PolicyAncestorStatus{
		{ControllerName: names.MeshController}, {ControllerName: "example.org/other"},
	}
	policies.Set(said)
	require.Equal(t, 1, taken.Get(nil, key))
	policies.Delete(key)
	require.Zero(t, naming.Get(nil, struct{}{}))
}
