// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestTokensOfARealAPIServer has tokens as kubelet gets them: what the operator looks for in one before it asks is
// there.
func TestTokensOfARealAPIServer(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{})
	c, err := client.New(cfg, client.Options{})
	require.NoError(t, err)
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cart"}}
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: "default", Name: "cart-1"}, Spec: corev1.PodSpec{
		ServiceAccountName: account.Name, NodeName: "n1", Containers: []corev1.Container{{Name: "c", Image: "c"}},
	}}
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}}
	for _, o := range []client.Object{account, node, pod} {
		require.NoError(t, c.Create(t.Context(), o))
	}
	token := func(audience string, bound *authenticationv1.BoundObjectReference) string {
		r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
			Audiences: []string{audience}, BoundObjectRef: bound,
		}}
		require.NoError(t, c.SubResource("token").Create(t.Context(), account, r))
		return r.Status.Token
	}
	self := &authenticationv1.BoundObjectReference{Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID}
	a := auth.NewAuthenticator(c, nil, nil)
	peer := netip.MustParseAddr("10.244.0.5")
	caller, err := a.Caller(t.Context(), token(names.TokenAudience, self), peer)
	require.NoError(t, err)
	require.Equal(t, auth.Caller{
		Namespace: "default", ServiceAccount: "cart", PodName: "cart-1", PodUID: string(pod.UID),
		NodeName: "n1",
	}, caller)
	_, err = a.Caller(t.Context(), token(names.TokenAudience, nil), peer)
	require.ErrorContains(t, err, "isn't bound to a pod")
	_, err = a.Caller(t.Context(), token("https://kubernetes.default.svc", self), peer)
	require.ErrorContains(t, err, "audience")
	require.NoError(t, c.Delete(t.Context(), pod, client.GracePeriodSeconds(0)))
}
