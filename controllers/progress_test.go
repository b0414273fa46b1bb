// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

func TestProgress(t *testing.T) {
	began := metav1.NewTime(time.Now().Add(-time.Hour).Truncate(time.Second))
	bad := metav1.Condition{Type: "Ready", Status: metav1.ConditionFalse, Reason: "Why", Message: "What."}
	good := metav1.Condition{Type: "Ready", Status: metav1.ConditionTrue}
	c := conditions.For(1, []metav1.Condition{{
		Type: v1alpha1.ConditionReconciling, Status: metav1.ConditionTrue, Reason: "Why", Message: "What.",
		LastTransitionTime: began,
	}})
	setProgress(c, bad, false)
	require.Equal(t, began, c.Get(v1alpha1.ConditionReconciling).LastTransitionTime, "it did not change")
	setProgress(c, bad, true)
	require.Nil(t, c.Get(v1alpha1.ConditionReconciling))
	require.True(t, c.IsTrue(v1alpha1.ConditionStalled))
	require.Equal(t, "Why", c.Get(v1alpha1.ConditionStalled).Reason)
	setProgress(c, good, true)
	require.Empty(t, c.List())
}

// Pods that start are waited for; what only somebody can mend is not.
func TestWaypointsThatStart(t *testing.T) {
	pod := func(conditions ...corev1.PodCondition) corev1.Pod {
		return corev1.Pod{Status: corev1.PodStatus{Conditions: conditions}}
	}
	serving := pod(corev1.PodCondition{
		Type: v1alpha1.PodConditionServing, Status: corev1.ConditionFalse, Message: "The proxy has no configuration yet.",
	})
	unschedulable := pod(corev1.PodCondition{
		Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable", Message: "no node",
	})
	failed := &appsv1.Deployment{Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{{
		Type: appsv1.DeploymentProgressing, Status: corev1.ConditionFalse, Message: "it has timed out progressing.",
	}}}}
	for name, c := range map[string]struct {
		pods       []corev1.Pod
		deployment *appsv1.Deployment
		reason     gwv1.GatewayConditionReason
		message    string
		progress   string
	}{
		"nothing known": {
			nil, &appsv1.Deployment{}, gwv1.GatewayReasonPending, "The waypoint's proxies are starting.",
			v1alpha1.ConditionReconciling,
		},
		"starting": {
			[]corev1.Pod{serving, pod()},
			&appsv1.Deployment{}, gwv1.GatewayReasonPending,
			"No proxy is ready: The proxy has no configuration yet.", v1alpha1.ConditionReconciling,
		},
		"starting for too long": {
			[]corev1.Pod{serving},
			failed, gwv1.GatewayReasonNoResources,
			"No proxy is ready: The proxy has no configuration yet.", v1alpha1.ConditionStalled,
		},
		"one can't": {
			[]corev1.Pod{serving, unschedulable},
			&appsv1.Deployment{}, gwv1.GatewayReasonNoResources,
			"No proxy is ready: Unschedulable: no node, The proxy has no configuration yet.", v1alpha1.ConditionStalled,
		},
		"over a quota": {
			nil, failed, gwv1.GatewayReasonNoResources, "No proxy is ready: it has timed out progressing.",
			v1alpha1.ConditionStalled,
		},
	} {
		t.Run(name, func(t *testing.T) {
			_, reason, message := programmedState(true, waypointObserved{
				mesh: true, enrolled: true, trustBundle: true, clusterIPs: []string{"10.0.0.1"}, deployment: c.deployment,
				troubles: waypointTroubles(c.pods),
			})
			require.Equal(t, c.reason, reason)
			require.Equal(t, c.message, message)
			set := conditions.For(1, nil)
			setWaypointProgress(set, metav1.Condition{Status: metav1.ConditionFalse, Reason: string(reason), Message: message})
			require.Len(t, set.List(), 1)
			require.NotNil(t, meta.FindStatusCondition(set.List(), c.progress))
		})
	}
}
