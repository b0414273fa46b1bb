// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/cluster/policytest"
	"github.com/fairway-mesh/fairway/internal/ingest/policy"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
)

const kindBackendTLS = "BackendTLSPolicy"

// worldOfPolicies has the objects of a case, and a kind of policies that asks for a host, for whose ports the
// waypoint's proxies must have their clusters.
func worldOfPolicies(t *testing.T, of string) (
	w *world, all *policy.Policies[string], in *cluster.Collection[*gwv1.BackendTLSPolicy],
) {
	w = newWorld()
	w.set(t, append(readManifests(t, "testdata/mesh.yaml"), readManifests(t, "testdata/"+of+"/input.yaml")...)...)
	in = cluster.NewPolicies[*gwv1.BackendTLSPolicy](w.graph)
	all = definePolicies(w.graph, w.in, policyKind[*gwv1.BackendTLSPolicy, string]{
		in: in,
		read: func(_ *memo.Ctx, p *gwv1.BackendTLSPolicy) (host, invalid string) {
			if host = string(p.Spec.Validation.Hostname); host == "" {
				invalid = "no host"
			}
			return host, invalid
		},
		needs: func(c *memo.Ctx, at []model.Attachment) ParentReport {
			out, served := w.in.atWaypoint(c, at)
			if served {
				out.Clusters = []string{w.in.clusterOf(c, at[0])}
			}
			return out
		},
	})
	return w, all, in
}

// TestAPolicyIsReportedOn as routes are: what is accepted, and which proxies must have what before it is Programmed.
func TestAPolicyIsReportedOn(t *testing.T) {
	w, all, in := worldOfPolicies(t, "split")
	ref := model.ObjectRef{Kind: kindBackendTLS, Namespace: "bookshop", Name: "limits"}
	port80 := model.Attachment{Port: model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: 80}}
	p := policytest.For(ref.Namespace, ref.Name, 3,
		[2]string{"reviews", ""}, [2]string{"reviews-v2", ""}, [2]string{"gone", ""})
	p.UID = "1"
	of, ok := ReportRef(p)
	require.True(t, ok)
	require.Equal(t, ref, of)

	in.Set(p)
	told := 0
	w.in.Report.Watch(ref, func(*Report) { told++ })
	w.graph.Flush()
	r := w.in.Report.Get(nil, ref)
	require.Equal(t, p.UID, r.UID)
	require.EqualValues(t, 3, r.Generation)
	require.Len(t, r.Parents, 3)
	accepted := string(gwv1.PolicyConditionAccepted)
	served, unserved, gone := r.Parents[0], r.Parents[1], r.Parents[2]
	require.Nil(t, served.Unprogrammed)
	require.NotZero(t, served.Waypoint)
	require.NotEmpty(t, served.Dialled)
	require.Equal(t, []string{"service/bookshop/reviews/80"}, served.Clusters)
	require.Equal(t, "example.org", all.InForce.Get(nil, port80).Content)
	require.True(t, meta.IsStatusConditionTrue(unserved.Conditions, accepted))
	require.Equal(t, v1alpha1.EntryReasonNoWaypoint, unserved.Unprogrammed.Reason)
	require.Contains(t, unserved.Unprogrammed.Message, "needs one that carries the policy out")
	require.Equal(t, string(gwv1.PolicyReasonTargetNotFound), meta.FindStatusCondition(gone.Conditions, accepted).Reason)
	require.Equal(t, string(gwv1.PolicyReasonTargetNotFound), gone.Unprogrammed.Reason)

	own := policytest.For(ref.Namespace, "own", 1, [2]string{"reviews", "http"})
	own.Spec.Validation.Hostname = ""
	in.Set(own)
	w.graph.Flush()
	require.Equal(t, v1alpha1.PolicyReasonOverridden, w.in.Report.Get(nil, ref).Parents[0].Unprogrammed.Reason)
	invalid := w.in.Report.Get(nil, model.ObjectRef{
		Kind: kindBackendTLS, Namespace: ref.Namespace,
		Name: "own",
	}).Parents[0]
	require.Equal(t, string(gwv1.PolicyReasonInvalid), invalid.Unprogrammed.Reason)
	require.Equal(t, "No host.", meta.FindStatusCondition(invalid.Conditions, accepted).Message)

	before := told
	w.delete(t, readManifests(t, "testdata/mesh.yaml")[0])
	w.graph.Flush()
	require.Empty(t, w.in.Report.Get(nil, ref).Parents, "there is nothing to say without a Mesh")
	require.Equal(t, before+1, told)
	in.Delete(cluster.Key{Namespace: ref.Namespace, Name: ref.Name})
	require.Nil(t, w.in.Report.Get(nil, ref))
}
