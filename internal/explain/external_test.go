// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
)

// TestHostsOutside: where a request leaves the cluster, the Service's policies decide, about the request as it leaves.
func TestHostsOutside(t *testing.T) {
	m := bookshop(t)
	of := metav1.ObjectMeta{Namespace: "bookshop", Name: "stripe"}
	for _, o := range []client.Object{
		&corev1.Service{ObjectMeta: of, Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.9.9", ClusterIPs: []string{"10.96.9.9"}, Ports: []corev1.ServicePort{{Name: "http", Port: 80}},
		}},
		&gwxv1alpha1.XBackend{ObjectMeta: of, Spec: gwxv1alpha1.BackendSpec{
			Type: gwxv1alpha1.BackendTypeExternalHostname, Port: gwxv1alpha1.BackendPort{Port: 8080},
			ExternalHostname: &gwxv1alpha1.ExternalHostnameBackend{Hostname: "api.stripe.example"},
		}},
		&gwv1.HTTPRoute{ObjectMeta: of, Spec: gwv1.HTTPRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: "stripe",
			}}},
			Rules: []gwv1.HTTPRouteRule{{BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{
				BackendObjectReference: gwv1.BackendObjectReference{
					Group: new(gwv1.Group(gwxv1alpha1.GroupName)), Kind: new(gwv1.Kind("XBackend")), Name: "stripe",
				},
			}}}}},
		}},
		&v1alpha1.AuthorizationPolicy{ObjectMeta: of, Spec: v1alpha1.AuthorizationPolicySpec{
			TargetRefs: []v1alpha1.AuthorizationTarget{{Kind: "Service", Name: "stripe"}},
			Action:     v1alpha1.ActionAllow, EnforcementLevel: v1alpha1.EnforcementLevelApplication,
			Rules: []v1alpha1.AuthorizationRule{{ApplicationAttributes: &v1alpha1.AuthorizationApplicationAttributes{
				Methods: []string{"GET"}, Hosts: []gwv1.Hostname{"api.stripe.example"},
			}}},
		}},
		// The namespace is closed as a whole, and so is its way out but for whom this lets.
		&v1alpha1.AuthorizationPolicy{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "shop-pays"},
			Spec: v1alpha1.AuthorizationPolicySpec{
				TargetRefs: []v1alpha1.AuthorizationTarget{{Kind: "Service", Name: "stripe"}},
				Action:     v1alpha1.ActionAllow, EnforcementLevel: v1alpha1.EnforcementLevelNetwork,
				Rules: []v1alpha1.AuthorizationRule{{Sources: []v1alpha1.AuthorizationSource{{
					Type:           v1alpha1.AuthorizationSourceTypeServiceAccount,
					ServiceAccount: &v1alpha1.AuthorizationServiceAccount{Name: "shop"},
				}}}},
			},
		},
	} {
		require.NoError(t, m.store.Set(o))
	}
	for _, tc := range []struct {
		account, method string
		want            Verdict
	}{
		{"shop", "GET", Allowed}, {"shop", "POST", Denied}, {"report", "GET", Denied},
	} {
		a, err := m.Ask(Question{
			Account: in(tc.account), Service: in("stripe"), Request: &Request{Method: tc.method, Host: "stripe", Path: "/"},
		})
		require.NoError(t, err)
		require.Equal(t, tc.want, a.Verdict, "%+v", a.Steps)
		require.Contains(t, a.Steps[len(a.Steps)-1].At,
			"out of the cluster to api.stripe.example:8080 by XBackend bookshop/stripe")
	}
}
