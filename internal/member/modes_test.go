// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	strictMode = v1alpha1.MTLSModeStrict
	permissive = v1alpha1.MTLSModePermissive
)

// modePolicy is for the namespace, or for pods with a label app.
func modePolicy(app string, mode v1alpha1.MTLSMode, ports ...v1alpha1.MTLSPort) v1alpha1.AuthenticationPolicy {
	target := v1alpha1.AuthenticationTarget{Kind: "Namespace"}
	if app != "" {
		target = v1alpha1.AuthenticationTarget{
			Kind: "Pod", Selector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
		}
	}
	return v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "p"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{target},
			MTLS:       &v1alpha1.MTLSAuthentication{Mode: mode, Ports: ports},
		},
	}
}

func portMode(port int32, mode v1alpha1.MTLSMode) v1alpha1.MTLSPort {
	return v1alpha1.MTLSPort{Port: port, Mode: mode}
}

func TestModes(t *testing.T) {
	elsewhere, tokens := modePolicy("", strictMode), modePolicy("", strictMode)
	elsewhere.Namespace = "other"
	tokens.Spec.MTLS, tokens.Spec.TargetRefs[0] = nil, v1alpha1.AuthenticationTarget{Kind: "Service", Name: "cart"}
	bad := modePolicy("cart", permissive, portMode(80, permissive))
	bad.Spec.TargetRefs[0].Selector = &metav1.LabelSelector{MatchExpressions: []metav1.LabelSelectorRequirement{
		{Key: "app", Operator: "Like", Values: []string{"x"}},
	}}
	both := modePolicy("none", strictMode)
	both.Spec.TargetRefs = append(both.Spec.TargetRefs, modePolicy("cart", strictMode).Spec.TargetRefs...)
	var many []v1alpha1.AuthenticationPolicy
	for n := range int32(MostPorts + 1) {
		many = append(many, modePolicy("", "", portMode(n+1, strictMode)))
	}
	for name, c := range map[string]struct {
		policies []v1alpha1.AuthenticationPolicy
		// Labels of the pod and of its namespace, and the Mesh's mode.
		pod, namespace string
		mesh           v1alpha1.MTLSMode
		strict         bool
		except         []uint16
	}{
		"none":                {mesh: permissive},
		"none, a strict Mesh": {mesh: strictMode, strict: true},
		"the namespace's":     {policies: policies(modePolicy("", strictMode)), strict: true},
		"over labels": {
			policies: policies(modePolicy("", strictMode)), pod: names.MTLSPermissive, strict: true,
		},
		"permissive over labels": {
			policies: policies(modePolicy("", permissive)), pod: names.MTLSStrict, mesh: strictMode,
		},
		"over a label nobody knows": {policies: policies(modePolicy("", permissive)), pod: "on"},
		"the pod's over the namespace's": {
			policies: policies(modePolicy("", strictMode), modePolicy("cart", permissive)), mesh: strictMode,
		},
		"another pod's":          {policies: policies(modePolicy("web", strictMode))},
		"one of several targets": {policies: policies(both), strict: true},
		"two for the same pods": {
			policies: policies(modePolicy("cart", permissive), modePolicy("cart", strictMode)), strict: true,
		},
		"of another namespace": {policies: policies(elsewhere)},
		"about something else": {policies: policies(tokens)},
		"not understood":       {policies: policies(bad), strict: true},
		"a strict port":        {policies: policies(modePolicy("", "", portMode(80, strictMode))), except: []uint16{80}},
		"a permissive port": {
			policies: policies(modePolicy("", strictMode, portMode(9090, permissive))), strict: true, except: []uint16{9090},
		},
		"a permissive port, strict by label": {
			policies: policies(modePolicy("cart", "", portMode(9090, permissive))), namespace: names.MTLSStrict,
			strict: true, except: []uint16{9090},
		},
		"a port that has the mode anyway": {policies: policies(modePolicy("", permissive, portMode(80, permissive)))},
		"all ports of the pod over a port of the namespace": {
			policies: policies(modePolicy("", "", portMode(9090, permissive)), modePolicy("cart", strictMode)), strict: true,
		},
		"a port of the pod over all of it": {
			policies: policies(modePolicy("cart", strictMode), modePolicy("cart", "", portMode(9090, permissive))),
			strict:   true, except: []uint16{9090},
		},
		"ports of both": {
			policies: policies(modePolicy("", strictMode, portMode(9091, permissive), portMode(9090, permissive)),
				modePolicy("cart", "", portMode(9090, strictMode), portMode(9092, permissive))),
			strict: true, except: []uint16{9091, 9092},
		},
		"two for the same port": {
			policies: policies(modePolicy("cart", "", portMode(80, strictMode)),
				modePolicy("cart", "", portMode(80, permissive))),
			except: []uint16{80},
		},
		"more ports than a pod may have": {policies: many, strict: true},
		"as many": {
			policies: many[:MostPorts],
			except: func() (out []uint16) {
				for n := range uint16(MostPorts) {
					out = append(out, n+1)
				}
				return out
			}(),
		},
	} {
		t.Run(name, func(t *testing.T) {
			mesh := testMesh()
			mesh.Spec.MTLS.Mode = c.mesh
			pod := testPod(labelled("app", "cart"), labelled(names.LabelMTLSMode, c.pod))
			d := Decide(pod, testNamespace(names.LabelMTLSMode, c.namespace), mesh, names.SystemNamespace, c.policies...)
			require.Equal(t, Capture, d.Action)
			require.Equal(t, c.strict, d.Strict)
			require.Equal(t, c.except, d.Except)
			require.Empty(t, d.Problem)
			require.Contains(t, d.Message, d.mode())
			for _, p := range c.except {
				require.Equal(t, !c.strict, d.StrictAt(p))
			}
			require.Equal(t, c.strict, d.StrictAt(12_345))
		})
	}
}

func policies(p ...v1alpha1.AuthenticationPolicy) []v1alpha1.AuthenticationPolicy { return p }

// TestCarries compares what an agent says with what should be.
func TestCarries(t *testing.T) {
	decisions := []Decision{
		{},
		{Strict: true},
		{Except: []uint16{80}},
		{Strict: true, Except: []uint16{80}},
		{Strict: true, Except: []uint16{8}},
		{Strict: true, Except: []uint16{80, 8080}},
		{Except: []uint16{80, 8080}},
	}
	for a, said := range decisions {
		for b, wanted := range decisions {
			saying := func(captured corev1.ConditionStatus) *corev1.Pod {
				return testPod(func(p *corev1.Pod) {
					p.Status.Conditions = []corev1.PodCondition{{
						Type: v1alpha1.PodConditionCaptured, Status: captured,
						Message: messageCaptured + said.mode() + " Outbound is closed.",
					}}
				})
			}
			require.Equal(t, a == b, Carries(saying(corev1.ConditionTrue), wanted),
				fmt.Sprintf("%q for %q", said.mode(), wanted.mode()))
			require.False(t, Carries(saying(corev1.ConditionFalse), wanted))
		}
	}
}

// TestTargetsByName: pods have labels, and no name.
func TestTargetsByName(t *testing.T) {
	p := modePolicy("cart", strictMode)
	require.Empty(t, p.Targets())
	p.Spec.TargetRefs = []v1alpha1.AuthenticationTarget{{
		Kind: "Service", Name: "cart", SectionName: new(gwv1.SectionName("http")),
	}}
	require.Len(t, p.Targets(), 1)
	require.EqualValues(t, "cart", p.Targets()[0].Name)
	require.EqualValues(t, "http", *p.Targets()[0].SectionName)
}
