// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
)

// Relabel changes a label of a pod by its status, which takes labels, too, and is all of a pod that the agents of nodes
// may write (config/rbac, and the admission policy beside it).
func Relabel(ctx context.Context, c client.Client, pod types.NamespacedName, label, from, to string) error {
	was := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: pod.Namespace, Name: pod.Name, Labels: map[string]string{label: from},
	}}
	now := was.DeepCopy()
	now.Labels[label] = to
	return c.Status().Patch(ctx, now, client.MergeFrom(was))
}
