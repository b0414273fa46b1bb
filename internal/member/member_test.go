// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

func TestEnrolled(t *testing.T) {
	require.False(t, Enrolled(nil))
	for value, want := range map[string]bool{
		"": false, names.MeshEnabled: true, names.MeshDisabled: false, "Enabled": false, "true": false,
	} {
		ns := testNamespace(names.LabelMesh, value)
		require.Equal(t, want, Enrolled(ns), value)
		require.Equal(t, want, labels.SelectorFromSet(EnrolledLabels()).Matches(labels.Set(ns.Labels)), value)
	}
	require.False(t, Enrolled(&corev1.Namespace{}), "without any label")
}

// What makes a pod no member, and with what it is told together: what comes first here is what people hear.
func TestWhyNot(t *testing.T) {
	hostNetwork := func(p *corev1.Pod) { p.Spec.HostNetwork = true }
	phase := func(to corev1.PodPhase) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Status.Phase = to } }
	proxy := func(p *corev1.Pod) {
		p.Labels[names.LabelComponent], p.Labels[names.LabelGatewayName] = names.ComponentWaypoint, "w"
	}
	out := labelled(names.LabelMesh, names.MeshDisabled)
	nobody := func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" }
	mirror := func(p *corev1.Pod) { p.Annotations = map[string]string{names.AnnotationMirror: "x"} }
	enrolled, other := testNamespace(), testNamespace(names.LabelMesh, "")
	for name, c := range map[string]struct {
		ns   *corev1.Namespace
		want string
		pod  []func(*corev1.Pod)
	}{
		"member":                      {enrolled, "", nil},
		"says so itself":              {enrolled, "", []func(*corev1.Pod){labelled(names.LabelMesh, names.MeshEnabled)}},
		"says what means nothing":     {enrolled, "", []func(*corev1.Pod){labelled(names.LabelMesh, "off")}},
		"not started":                 {enrolled, "", []func(*corev1.Pod){phase(corev1.PodPending)}},
		"of a phase that is unknown":  {enrolled, "", []func(*corev1.Pod){phase(corev1.PodUnknown)}},
		"half of a waypoint's labels": {enrolled, "", []func(*corev1.Pod){labelled(names.LabelGatewayName, "w")}},
		"the other half": {enrolled, "", []func(*corev1.Pod){
			labelled(names.LabelComponent, names.ComponentWaypoint),
		}},
		"succeeded": {enrolled, v1alpha1.PodReasonFinished, []func(*corev1.Pod){phase(corev1.PodSucceeded)}},
		"failed": {enrolled, v1alpha1.PodReasonFinished, []func(*corev1.Pod){
			phase(corev1.PodFailed), out,
		}},
		"host's network": {enrolled, v1alpha1.PodReasonHostNetwork, []func(*corev1.Pod){
			hostNetwork, phase(corev1.PodFailed),
		}},
		"host's network, no member": {other, v1alpha1.PodReasonHostNetwork, []func(*corev1.Pod){hostNetwork}},
		"unknown namespace":         {nil, v1alpha1.PodReasonNamespaceUnknown, []func(*corev1.Pod){out, nobody}},
		"no member":                 {other, v1alpha1.PodReasonNotEnrolled, []func(*corev1.Pod){proxy, out, nobody}},
		"pod can't opt in": {other, v1alpha1.PodReasonNotEnrolled, []func(*corev1.Pod){
			labelled(names.LabelMesh, names.MeshEnabled),
		}},
		"waypoint":               {enrolled, v1alpha1.PodReasonProxy, []func(*corev1.Pod){proxy, out, nobody}},
		"opted out":              {enrolled, v1alpha1.PodReasonOptedOut, []func(*corev1.Pod){out, nobody}},
		"no account":             {enrolled, v1alpha1.PodReasonNoServiceAccount, []func(*corev1.Pod){nobody}},
		"mirror of a static pod": {enrolled, v1alpha1.PodReasonNoServiceAccount, []func(*corev1.Pod){mirror}},
	} {
		t.Run(name, func(t *testing.T) {
			pod := testPod(c.pod...)
			require.Equal(t, c.want, whyNot(pod, c.ns))
			require.Equal(t, c.want == "", Is(pod, c.ns))
			if c.want != "" {
				require.NotEqual(t, c.want, messageOf(c.want, pod), "people are told more than a word")
			}
		})
	}
}

func TestIdentity(t *testing.T) {
	require.Equal(t, "cart", Account(testPod()))
	require.Equal(t, "spiffe://example.org/ns/shop/sa/cart", Identity("example.org", testPod()))
	for _, change := range []func(*corev1.Pod){
		func(p *corev1.Pod) { p.Spec.ServiceAccountName = "" },
		func(p *corev1.Pod) { p.Annotations = map[string]string{names.AnnotationMirror: ""} },
	} {
		require.Empty(t, Account(testPod(change)))
		require.Empty(t, Identity("example.org", testPod(change)))
	}
}

func TestTrustDomain(t *testing.T) {
	require.Equal(t, names.DefaultTrustDomain, TrustDomain(nil))
	require.Equal(t, names.DefaultTrustDomain, TrustDomain(&v1alpha1.Mesh{}))
	require.Equal(t, "example.org", TrustDomain(testMesh()))
}

func TestCaptured(t *testing.T) {
	require.Nil(t, Condition(testPod()))
	require.False(t, Captured(testPod()))
	for status, want := range map[corev1.ConditionStatus]bool{
		corev1.ConditionTrue: true, corev1.ConditionFalse: false, corev1.ConditionUnknown: false, "": false,
	} {
		pod := testPod(func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{
				{Type: corev1.PodReady, Status: corev1.ConditionTrue}, {
					Type: v1alpha1.PodConditionCaptured, Status: status,
					Reason: "R",
				},
			}
		})
		require.Equal(t, want, Captured(pod), status)
		require.Equal(t, "R", Condition(pod).Reason)
	}
}

// A Service's own label goes before its namespace's.
func TestUseOf(t *testing.T) {
	const auto, none = names.UseWaypointAuto, names.UseWaypointNone
	for _, c := range []struct {
		service, namespace   string
		gateway              string
		own, none, automatic bool
	}{
		{"", "", names.AutomaticWaypoint, false, false, true},
		{"", auto, names.AutomaticWaypoint, false, false, true},
		{"", none, "", false, true, false},
		{"", "w", "w", false, false, false},
		{auto, "", names.AutomaticWaypoint, true, false, true},
		{auto, none, names.AutomaticWaypoint, true, false, true},
		{auto, "w", names.AutomaticWaypoint, true, false, true},
		{none, "", "", true, true, false},
		{none, auto, "", true, true, false},
		{none, "w", "", true, true, false},
		{"v", "", "v", true, false, false},
		{"v", none, "v", true, false, false},
		{"v", "w", "v", true, false, false},
	} {
		label := func(value string) metav1.ObjectMeta {
			return metav1.ObjectMeta{Labels: map[string]string{names.LabelUseWaypoint: value}}
		}
		use := UseOf(&corev1.Service{ObjectMeta: label(c.service)}, &corev1.Namespace{ObjectMeta: label(c.namespace)})
		require.Equal(t, c.gateway, use.Gateway(), c)
		require.Equal(t, []bool{c.own, c.none, c.automatic}, []bool{use.Own, use.None(), use.Automatic()}, c)
	}
	require.Equal(t, WaypointUse{}, UseOf(nil, nil))
	require.True(t, UseOf(&corev1.Service{}, nil).Automatic())
}
