// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestModesByPolicy makes a namespace strict, but for the port that somebody outside of the mesh scrapes.
func TestModesByPolicy(t *testing.T) {
	t.Parallel()
	s, outside := enrolled(t), newSpace(t)
	outside.client("stranger")
	s.client("client")
	s.server("server", spec(func(p *corev1.PodSpec) {
		metrics := *p.Containers[0].DeepCopy()
		metrics.Name, metrics.Args = "metrics", []string{"serve", "--name=metrics", "--port=9090"}
		metrics.Ports = []corev1.ContainerPort{{Name: "metrics", ContainerPort: 9090}}
		metrics.ReadinessProbe.HTTPGet.Port = intstr.FromString("metrics")
		p.Containers = append(p.Containers, metrics)
	}))
	s.service("server", "server")
	s.captured("client", "server")
	pod := "http://" + s.pod("server").Status.PodIP
	outside.answers("stranger", pod+":8080/", "server")
	outside.answers("stranger", pod+":9090/", "metrics")

	policy := &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Name: "strict"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Namespace"}},
			MTLS: &v1alpha1.MTLSAuthentication{
				Mode: v1alpha1.MTLSModeStrict, Ports: []v1alpha1.MTLSPort{{Port: 9090, Mode: v1alpha1.MTLSModePermissive}},
			},
		},
	}
	s.create(policy)
	eventually.Passes(t, "the policy is Enforced", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(policy), policy))
		require.NotEmpty(look, policy.Status.Ancestors)
		e := meta.FindStatusCondition(policy.Status.Ancestors[0].Conditions, v1alpha1.PolicyConditionEnforced)
		require.NotNil(look, e)
		require.Equal(look, metav1.ConditionTrue, e.Status, e.Message)
		require.Contains(look, e.Message, "for 2 of 2 pods")
	})
	_, err := outside.get("stranger", pod+":8080/", "--timeout=5s")
	require.Error(t, err, "Enforced is true, so plain text is refused at once")
	outside.refuses("stranger", pod+":8080/")
	outside.answers("stranger", pod+":9090/", "metrics")
	s.answers("client", "http://server/", "server")
	require.NoError(t, world.client.Delete(t.Context(), policy))
	outside.answers("stranger", pod+":8080/", "server")
}
