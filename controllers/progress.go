// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
)

// setProgress says for tools that know nothing of a kind how the condition that sums its object up will go on, as
// kstatus reads it (https://github.com/kubernetes-sigs/cli-utils/tree/master/pkg/kstatus): Stalled where it needs
// somebody, Reconciling where it comes true by itself, neither where it is True.
func setProgress(c *conditions.Set, sum metav1.Condition, stalled bool) {
	for kind, so := range map[string]bool{
		v1alpha1.ConditionStalled:     sum.Status != metav1.ConditionTrue && stalled,
		v1alpha1.ConditionReconciling: sum.Status != metav1.ConditionTrue && !stalled,
	} {
		if so {
			c.True(kind, sum.Reason, sum.Message)
		} else {
			c.Remove(kind)
		}
	}
}
