// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
)

// What is deployed before is spoken of only where there is something.
func TestProgrammedOfWhatIsNotAccepted(t *testing.T) {
	_, _, message := programmedState(false, waypointObserved{mesh: true})
	require.Equal(t, "The Gateway is not accepted, so no proxy is deployed: see condition Accepted.", message)
	_, _, message = programmedState(false, waypointObserved{mesh: true, deployment: &appsv1.Deployment{}})
	require.Equal(t, "The Gateway is not accepted: see condition Accepted. Its existing proxies keep running.", message)
}

// Without a metrics server no waypoint can scale; the autoscaler's whole complaint with each of them helps nobody.
func TestAutoscalingWithoutMetrics(t *testing.T) {
	hpa := func(reason string) *autoscalingv2.HorizontalPodAutoscaler {
		return &autoscalingv2.HorizontalPodAutoscaler{Status: autoscalingv2.HorizontalPodAutoscalerStatus{
			Conditions: []autoscalingv2.HorizontalPodAutoscalerCondition{{
				Type: autoscalingv2.ScalingActive, Status: corev1.ConditionFalse, Reason: reason, Message: "the HPA was unable to",
			}},
		}}
	}
	require.Equal(t, " Their number doesn't change: there are no metrics to scale by.",
		scalingProblem(hpa("FailedGetContainerResourceMetric")))
	require.Equal(t, " Autoscaling does not work: the HPA was unable to.", scalingProblem(hpa("InvalidSelector")))
	require.Empty(t, scalingProblem(hpa("ScalingDisabled")))
}
