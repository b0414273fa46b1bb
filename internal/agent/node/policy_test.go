// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// What the admission policy lets an agent write: the condition, of pods of its own node, and nothing else.
func TestPolicyOfTheAgent(t *testing.T) {
	f := setUp(t)
	ctx := context.Background()
	for _, policy := range deploy.Policies(names.SystemNamespace) {
		o, err := deploy.ForApply(policy)
		require.NoError(t, err)
		f.ensure(o)
		t.Cleanup(func() { require.NoError(t, client.IgnoreNotFound(f.Delete(ctx, o))) })
	}
	p := f.pod("cart", "10.244.1.5")
	as := func(node string) client.Client {
		c, err := client.New(asAgent(f.config, node), client.Options{Scheme: f.Scheme()})
		require.NoError(t, err)
		return c
	}
	patch := func(node, patch string) error {
		return as(node).Status().Patch(ctx, p.DeepCopy(), client.RawPatch(types.StrategicMergePatchType, []byte(patch)))
	}
	captured := func(node string, is corev1.ConditionStatus, message string) error {
		_, err := pods.WriteCondition(ctx, as(node), &corev1.Pod{ObjectMeta: p.ObjectMeta}, v1alpha1.PodConditionCaptured, is,
			v1alpha1.PodReasonCaptured, message)
		return err
	}
	// A new policy takes a moment to be in force.
	eventually.True(f.t, "the policy is in force", func() bool {
		return apierrors.IsForbidden(captured("another", corev1.ConditionTrue, "probing"))
	})

	_, err := pods.WriteCondition(ctx, as(f.node), &corev1.Pod{ObjectMeta: p.ObjectMeta},
		v1alpha1.PodConditionPluginInstalled, corev1.ConditionTrue, "", "")
	require.NoError(t, err)
	require.NoError(t, captured(f.node, corev1.ConditionTrue, "one"))
	require.NoError(t, captured(f.node, corev1.ConditionFalse, "two"))
	c := f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonCaptured)
	require.Equal(t, "Two.", c.Message)
	for name, body := range map[string]string{
		"another condition":  `{"status":{"conditions":[{"type":"Ready","status":"True"}]}}`,
		"another IP":         `{"status":{"podIP":"10.244.1.6","podIPs":[{"$patch":"replace"},{"ip":"10.244.1.6"}]}}`,
		"another phase":      `{"status":{"phase":"Failed"}}`,
		"container statuses": `{"status":{"containerStatuses":[{"name":"app","image":"x","imageID":"","ready":true,"restartCount":1}]}}`,
		"a label":            `{"metadata":{"labels":{"a":"b"}}}`,
		"an annotation":      `{"metadata":{"annotations":{"a":"b"}}}`,
		"a finalizer":        `{"metadata":{"finalizers":["example.org/x"]}}`,
	} {
		t.Run(name, func(t *testing.T) {
			err := patch(f.node, body)
			require.True(t, apierrors.IsForbidden(err), "%v", err)
			require.Contains(t, err.Error(), names.AgentPolicy, "by the policy, not by RBAC")
		})
	}
	// Of its own pod it may say that it drains, when it is deleted.
	itself := f.pod("itself", "", func(p *corev1.Pod) { p.Spec.TerminationGracePeriodSeconds = new(int64(3600)) })
	t.Cleanup(func() { require.NoError(t, f.Delete(ctx, itself, client.GracePeriodSeconds(0))) })
	own := asAgent(f.config, f.node)
	own.Impersonate.Extra["authentication.kubernetes.io/pod-uid"] = []string{string(itself.UID)}
	self, err := client.New(own, client.Options{Scheme: f.Scheme()})
	require.NoError(t, err)
	relabel := func(as client.Client, value string) error {
		return as.Status().Patch(ctx, itself.DeepCopy(), client.RawPatch(types.MergePatchType,
			fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, names.LabelComponent, value)))
	}
	require.True(t, apierrors.IsForbidden(relabel(self, names.ComponentNodeDraining)), "no pod of a node proxy")
	require.NoError(t, f.Patch(ctx, itself.DeepCopy(), client.RawPatch(types.MergePatchType,
		fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, names.LabelComponent, names.ComponentNode))))
	require.True(t, apierrors.IsForbidden(relabel(self, names.ComponentNodeDraining)), "a pod that stays")
	require.NoError(t, f.Delete(ctx, itself.DeepCopy()))
	require.True(t, apierrors.IsForbidden(relabel(as(f.node), names.ComponentNodeDraining)), "another pod")
	require.True(t, apierrors.IsForbidden(relabel(self, names.ComponentOperator)), "another value")
	require.NoError(t, relabel(self, names.ComponentNodeDraining))
	require.True(t, apierrors.IsForbidden(relabel(self, names.ComponentNode)), "back again")

	err = captured("another", corev1.ConditionTrue, "three")
	require.ErrorContains(t, err, "the fairway agent of node another may not change pods of node "+f.node)
	require.True(t, apierrors.IsForbidden(captured("", corev1.ConditionTrue, "four")),
		"a token that isn't bound to a node")

	// Others aren't concerned, and the condition of another writer is left alone by kubelet's kind of patch.
	f.run(p, "10.244.1.7")
	require.Equal(t, "Two.", f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonCaptured).Message)
	require.True(t, apierrors.IsForbidden(
		as(f.node).Patch(ctx, p, client.RawPatch(types.MergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}}}`)))),
		"RBAC: the status only")
	require.Equal(t, names.Domain+"/Captured", v1alpha1.PodConditionCaptured, "as the policy spells it")
	require.Equal(t, names.Domain+"/Serving", v1alpha1.PodConditionServing, "as the policy spells it")
	require.Equal(t, names.Domain+"/PluginInstalled", v1alpha1.PodConditionPluginInstalled, "as the policy spells it")
}
