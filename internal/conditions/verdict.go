// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conditions

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// Verdict is the reason and message of a condition that something went wrong for.
type Verdict struct {
	Reason  string
	Message string
}

// Judged is a condition that is False for what a verdict says, and True where there is none.
func Judged(kind string, bad *Verdict, good, message string, generation int64) metav1.Condition {
	if bad != nil {
		return New(kind, metav1.ConditionFalse, bad.Reason, bad.Message, generation)
	}
	return New(kind, metav1.ConditionTrue, good, message, generation)
}
