// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestModesFollowPolicies: with the rights of the manifests, an agent sees policies of its pods' namespaces, and
// carries them out.
func TestModesFollowPolicies(t *testing.T) {
	f := setUp(t)
	p := f.pod("web", "10.244.1.5", func(p *corev1.Pod) { p.Labels["app"] = "web" })
	f.sandbox(t, string(p.UID), "ns-web")
	f.start()
	says := func(mode string) {
		t.Helper()
		eventually.True(t, mode, func() bool {
			return strings.Contains(f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured).Message, mode)
		})
	}
	says("plaintext is accepted too (permissive).")
	policy := &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "web"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{
				Kind: "Pod", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": "web"}},
			}},
			MTLS: &v1alpha1.MTLSAuthentication{Ports: []v1alpha1.MTLSPort{{Port: 8080, Mode: v1alpha1.MTLSModeStrict}}},
		},
	}
	require.NoError(t, f.Create(t.Context(), policy))
	says("plaintext is accepted too (permissive), but refused at port 8080.")
	require.GreaterOrEqual(t, f.index("end plaintext ns-web 8080=true"), 0)

	policy.Spec.MTLS = &v1alpha1.MTLSAuthentication{
		Mode: v1alpha1.MTLSModeStrict, Ports: []v1alpha1.MTLSPort{{Port: 8080, Mode: v1alpha1.MTLSModePermissive}},
	}
	require.NoError(t, f.Update(t.Context(), policy))
	says("plaintext is refused (strict), but accepted at port 8080.")
	eventually.True(t, "the agent's own view", func() bool {
		s := f.state(p)
		return s.Mode == names.MTLSStrict && len(s.Except) == 1 && s.Except[0] == 8080
	})
	require.GreaterOrEqual(t, f.index("end plaintext ns-web 8080=false"), 0)

	// A pod that starts has its mode before its first packet.
	late := f.pod("late", "", func(p *corev1.Pod) { p.Labels["app"] = "web" })
	path := f.sandbox(t, "not yet", "ns-late")
	require.Equal(t, plugin.Response{Captured: true}, f.ask(plugin.Request{
		Command: plugin.CommandAdd, ContainerID: "c", Netns: path, IfName: "eth0", PodNamespace: f.namespace,
		PodName: late.Name, PodUID: string(late.UID), IPs: []netip.Addr{netip.MustParseAddr("10.244.1.6")},
	}))
	require.Equal(t, names.MTLSStrict, f.state(late).Mode)

	require.NoError(t, client.IgnoreNotFound(f.Delete(t.Context(), policy)))
	says("plaintext is accepted too (permissive).")
}
