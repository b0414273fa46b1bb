// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// TestServicesOverBudgetAreClosed, and say why; they stay closed whatever becomes of the waypoint.
func TestServicesOverBudgetAreClosed(t *testing.T) {
	c := boundCondition(ingest.Binding{Problem: "too many ports", OverBudget: true})
	require.Equal(t, metav1.ConditionFalse, c.Status)
	require.Equal(t, v1alpha1.ServiceReasonOverBudget, c.Reason)
	require.Equal(t, "Too many ports; until then, connections are refused.", c.Message)
	require.True(t, cluster.ServiceClosed(
		&corev1.Service{Status: corev1.ServiceStatus{Conditions: []metav1.Condition{c}}}))
}
