// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"errors"
	"testing"

	"github.com/stretchr/testify/require"
	admissionregistrationv1 "k8s.io/api/admissionregistration/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestLabelPolicy: a label of the mesh whose value means nothing is refused, with words that say what would mean
// something. Nothing else is.
func TestLabelPolicy(t *testing.T) {
	o := start(t, shared.Config(t))
	ctx := context.Background()
	ns := o.namespace("labels-")
	// Labelled before there was a policy.
	old := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "old", Labels: map[string]string{names.LabelMTLSMode: "Strict"}},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "c", Image: "x"}}},
	}
	o.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}})
	eventually.NoError(o.t, "no policy of another test is in force", func() error { return o.Create(ctx, old) })
	mesh := o.mesh()
	policy := get(o, "the policy of agents", "", names.AgentPolicy,
		exists[*admissionregistrationv1.ValidatingAdmissionPolicy])
	require.Contains(t, policy.Spec.MatchConditions[0].Expression,
		"system:serviceaccount:"+o.system+":"+names.NodeServiceAccount)
	require.True(t, metav1.IsControlledBy(policy, mesh))

	namespace := func(labels map[string]string) client.Object {
		return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "labelled-", Labels: labels}}
	}
	pod := func(labels map[string]string) client.Object {
		return &corev1.Pod{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "labelled-", Labels: labels}, Spec: old.Spec,
		}
	}
	service := func(labels map[string]string) client.Object {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, GenerateName: "labelled-", Labels: labels},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}
	}
	dry := func(obj client.Object) error { return o.Create(ctx, obj, client.DryRunAll) }
	eventually.NoError(o.t, "the policy is in force", func() error {
		if err := dry(namespace(map[string]string{names.LabelMesh: "true"})); !apierrors.IsInvalid(err) {
			return errors.Join(errors.New("not refused"), err)
		}
		return nil
	})
	for _, c := range []struct {
		object client.Object
		says   string
	}{
		{
			namespace(map[string]string{names.LabelMesh: "Enabled"}),
			`label fairway.dev/mesh is "Enabled", which means nothing: "enabled" takes`,
		},
		{
			namespace(map[string]string{names.LabelMTLSMode: "Strict"}),
			`label fairway.dev/mtls-mode is "Strict", which is no mode: use "strict" or "permissive"`,
		},
		{pod(map[string]string{names.LabelMesh: "false"}), `"disabled" keeps a pod out of it`},
		{pod(map[string]string{names.LabelMTLSMode: ""}), `label fairway.dev/mtls-mode is ""`},
		{
			namespace(map[string]string{names.LabelOutbound: "Deny"}),
			`label fairway.dev/outbound is "Deny", which means nothing: use "allow" or "deny"`,
		},
		{pod(map[string]string{names.LabelOutbound: "none"}), `label fairway.dev/outbound is "none"`},
		{service(map[string]string{names.LabelUseWaypoint: "other.namespace"}), `use a Gateway's name, "auto" or "none"`},
	} {
		require.ErrorContains(t, dry(c.object), c.says)
	}
	for _, labels := range []map[string]string{
		nil,
		{"app": "x"},
		{names.LabelOutbound: "allow"},
		{names.LabelOutbound: "deny"},
		{names.LabelMesh: "enabled", names.LabelMTLSMode: "strict", names.LabelUseWaypoint: "auto"},
		{names.LabelMesh: "disabled", names.LabelMTLSMode: "permissive", names.LabelUseWaypoint: "my-waypoint"},
	} {
		for _, obj := range []client.Object{namespace(labels), pod(labels), service(labels)} {
			require.NoError(t, dry(obj), "%T %v", obj, labels)
		}
	}
	// What is there already is not stuck for its label, which only may not get worse.
	change(o, ns, "old", func(p *corev1.Pod) { p.Labels["app"] = "x" })
	require.NoError(t, o.Get(ctx, client.ObjectKeyFromObject(old), old))
	old.Labels[names.LabelMTLSMode] = "STRICT"
	require.ErrorContains(t, o.Update(ctx, old), "STRICT")
	finishDaemonSet(o)
}
