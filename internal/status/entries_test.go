// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

func accepted(generation int64) []metav1.Condition {
	return []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: generation}}
}

func TestMergeKeepsOthersAndTimes(t *testing.T) {
	long := metav1.NewTime(time.Unix(1000, 0))
	ref := gwv1.ParentReference{Name: "reviews"}
	other := gwv1.RouteParentStatus{ControllerName: "example.org/other", ParentRef: ref}
	old := []gwv1.RouteParentStatus{
		other, {ControllerName: names.MeshController, ParentRef: ref, Conditions: []metav1.Condition{
			{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: long},
			{Type: "PartiallyInvalid", Status: "True", Reason: "x", LastTransitionTime: long},
		}}, {ControllerName: names.MeshController, ParentRef: gwv1.ParentReference{Name: "former"}},
	}
	got := MergeParents(old, []gwv1.RouteParentStatus{
		{ControllerName: names.MeshController, ParentRef: ref, Conditions: accepted(2)},
	}, names.MeshController)
	require.Len(t, got, 2)
	require.Equal(t, other, got[0])
	require.Len(t, got[1].Conditions, 1, "what is no longer said goes")
	c := meta.FindStatusCondition(got[1].Conditions, "Accepted")
	require.Equal(t, long, c.LastTransitionTime)
	require.Equal(t, int64(2), c.ObservedGeneration)
}

// The API server would refuse a status with more ancestors, and so all of it.
func TestAPolicySaysThatItsStatusIsFull(t *testing.T) {
	ancestors := func(n int, by gwv1.GatewayController) (out []gwv1.PolicyAncestorStatus) {
		for i := range n {
			ref := gwv1.ParentReference{Name: gwv1.ObjectName(fmt.Sprint(i))}
			out = append(out, gwv1.PolicyAncestorStatus{AncestorRef: ref, ControllerName: by, Conditions: accepted(3)})
		}
		return out
	}
	theirs, ours := ancestors(10, "example.org/other"), ancestors(9, names.MeshController)
	got := MergeAncestors(theirs, ours, names.MeshController)
	require.Len(t, got, 16)
	require.Equal(t, theirs, got[:10])
	for n, a := range got[10:] {
		require.Equal(t, ours[n].AncestorRef, a.AncestorRef)
		c := meta.FindStatusCondition(a.Conditions, v1alpha1.EntryConditionStatusFull)
		require.NotNil(t, c)
		require.Equal(t, "A status is limited to 16 entries of all controllers together: 3 entries of the mesh are left out.",
			c.Message)
		require.Equal(t, int64(3), c.ObservedGeneration)
	}
	got = MergeAncestors(got, ours[:6], names.MeshController)
	require.Len(t, got, 16)
	for _, a := range got[10:] {
		require.Nil(t, meta.FindStatusCondition(a.Conditions, v1alpha1.EntryConditionStatusFull), "there is room again")
	}
	require.Equal(t, ancestors(16, "example.org/other"), MergeAncestors(ancestors(16, "example.org/other"), ours,
		names.MeshController))
	require.Len(t, MergeParents(nil, make([]gwv1.RouteParentStatus, 33), names.MeshController), 32)
}

// Two controllers that each write their own order would write for ever.
func TestMergeKeepsTheOrderThatIsThere(t *testing.T) {
	entry := func(by gwv1.GatewayController, name gwv1.ObjectName) gwv1.RouteParentStatus {
		return gwv1.RouteParentStatus{
			ControllerName: by, ParentRef: gwv1.ParentReference{Name: name}, Conditions: accepted(1),
		}
	}
	const other = gwv1.GatewayController("example.org/other")
	ours := []gwv1.RouteParentStatus{entry(names.MeshController, "a"), entry(names.MeshController, "b")}
	namesOf := func(all []gwv1.RouteParentStatus) (out []gwv1.ObjectName) {
		for _, p := range all {
			out = append(out, p.ParentRef.Name)
		}
		return out
	}
	old := []gwv1.RouteParentStatus{ours[0], entry(other, "1"), ours[1], entry(other, "2")}
	require.Equal(t, []gwv1.ObjectName{"a", "1", "b", "2"}, namesOf(MergeParents(old, ours, names.MeshController)))
	require.Equal(t, []gwv1.ObjectName{"b", "1", "2"}, namesOf(MergeParents(old, ours[1:], names.MeshController)))
	more := append(ours, entry(names.MeshController, "c"))
	require.Equal(t, []gwv1.ObjectName{"a", "1", "b", "2", "c"}, namesOf(MergeParents(old, more, names.MeshController)))
}

// etcd would refuse more, and so all of it.
func TestEntriesWithLongMessagesFitIntoAnObject(t *testing.T) {
	long := func(n int) (out []gwv1.RouteParentStatus) {
		text := strings.Repeat("x", 32768)
		for i := range n {
			out = append(out, gwv1.RouteParentStatus{
				ParentRef: gwv1.ParentReference{Name: gwv1.ObjectName(fmt.Sprint(i))},
				Conditions: []metav1.Condition{
					{Type: "Accepted", Message: "yes"},
					{Type: "ResolvedRefs", Message: text},
					{Type: "PartiallyInvalid", Message: text},
				},
			})
		}
		return out
	}
	one := MergeParents(nil, long(1), names.MeshController)
	require.Len(t, meta.FindStatusCondition(one[0].Conditions, "ResolvedRefs").Message, 32768)
	got := MergeParents(nil, long(32), names.MeshController)
	raw, err := json.Marshal(got)
	require.NoError(t, err)
	require.Less(t, len(raw), 1<<20)
	for _, p := range got {
		require.Equal(t, "yes", meta.FindStatusCondition(p.Conditions, "Accepted").Message)
		require.Greater(t, len(meta.FindStatusCondition(p.Conditions, "ResolvedRefs").Message), 4096)
	}
	require.Equal(t, got, MergeParents(got, long(32), names.MeshController))
}

// The order of conditions is that of what is said now, not of what was said first.
func TestConditionsHaveOneOrder(t *testing.T) {
	entry := func(kinds ...string) []gwv1.RouteParentStatus {
		p := gwv1.RouteParentStatus{ParentRef: gwv1.ParentReference{Name: "cart"}, ControllerName: "ours"}
		for _, kind := range kinds {
			p.Conditions = append(p.Conditions, metav1.Condition{
				Type: kind, Status: metav1.ConditionTrue, LastTransitionTime: metav1.Unix(1000, 0),
			})
		}
		return []gwv1.RouteParentStatus{p}
	}
	got := MergeParents(entry("Accepted", "Programmed"), entry("Accepted", "PartiallyInvalid", "Programmed"), "ours")
	var kinds []string
	for _, c := range got[0].Conditions {
		kinds = append(kinds, c.Type)
	}
	require.Equal(t, []string{"Accepted", "PartiallyInvalid", "Programmed"}, kinds)
}
