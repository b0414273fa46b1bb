// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package apiserver

import (
	"context"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Token is one for the operator as kubelet gives it to a pod. It is good for a day, which no test outlasts.
func Token(ctx context.Context, c client.Client, p *corev1.Pod) (string, error) {
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences:         []string{names.TokenAudience},
		ExpirationSeconds: new(int64(24 * 60 * 60)),
		BoundObjectRef:    &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: p.Name, UID: p.UID},
	}}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Namespace: p.Namespace, Name: p.Spec.ServiceAccountName,
	}}
	err := c.SubResource("token").Create(ctx, account, r)
	return r.Status.Token, err
}
