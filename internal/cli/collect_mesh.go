// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"

	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// whatMesh is the kind Mesh, which a cluster without Fairway doesn't have.
const whatMesh = "the Mesh"

func (k *collector) readMesh(ctx context.Context) {
	m := &v1alpha1.Mesh{}
	switch err := k.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, m); {
	case meta.IsNoMatchError(err):
		k.absent[whatMesh] = true
		return
	case apierrors.IsNotFound(err):
		return
	case apierrors.IsForbidden(err):
		k.meshUnknown = true
		k.forbidden = append(k.forbidden, whatMesh)
		k.Unread = append(k.Unread, whatMesh)
	case err != nil:
		k.meshUnknown = true
		k.Unread = append(k.Unread, whatMesh)
		k.failed.add(plainly(err), whatMesh)
	default:
		k.mesh = m
		k.report.Mesh = meshReport{
			Found: true, TrustDomain: m.Spec.TrustDomain, MTLS: string(m.Spec.MTLS.Mode), Outbound: string(m.Spec.Outbound),
			Conditions: conditionsOf(m.Status.Conditions),
		}
	}
	k.report.Mesh.Unknown = k.meshUnknown
}

func conditionsOf(in []metav1.Condition) []condition {
	out := make([]condition, 0, len(in))
	for _, c := range in {
		out = append(out, condition{Type: c.Type, Status: string(c.Status), Reason: c.Reason, Message: c.Message})
	}
	return out
}

// judgeMesh says what is wrong with the Mesh that isn't said with its cause already.
func (k *collector) judgeMesh() {
	about := "Mesh " + names.Mesh
	switch {
	case k.absent[whatMesh]:
		k.problem(notInstalled, "", "Fairway is not installed in this cluster: the kind Mesh does not exist")
		return
	case k.mesh == nil && k.meshUnknown:
		return
	case k.mesh == nil:
		k.problem(meshNotReady, about, "there is no Mesh: create one named %q", names.Mesh)
		return
	}
	noGatewayAPI := k.absent[whatGateways] || k.absent[whatHTTPRoutes]
	if noGatewayAPI {
		k.problem(notInstalled, "", "the kinds of the Gateway API are not installed, so there are no routes and no "+
			"waypoints: install its CRDs")
	}
	ready := meta.FindStatusCondition(k.mesh.Status.Conditions, v1alpha1.MeshConditionReady)
	switch {
	case ready == nil || ready.ObservedGeneration < k.mesh.Generation:
		if !k.operator.down {
			k.problem(meshNotReady, about, "the operator has not processed the Mesh yet: is it running?")
		}
	case ready.Status == metav1.ConditionTrue:
	case noGatewayAPI && ready.Reason == v1alpha1.MeshReasonGatewayAPIMissing:
	default:
		k.problem(meshNotReady, about, "the Mesh is not ready: %s: %s", ready.Reason, ready.Message)
	}
	renewed := meta.FindStatusCondition(k.mesh.Status.Conditions, v1alpha1.MeshConditionCertificatesRenewed)
	if renewed != nil && renewed.Status == metav1.ConditionFalse {
		k.problem(renewalFails, about, "certificates are not renewed: %s: %s", renewed.Reason, renewed.Message)
	}
}

// operatorState is what is known of the operator's replicas.
type operatorState struct {
	// down: it is sure that no replica serves.
	down bool
	// pods that run, by whether they are ready.
	ready, unready []types.NamespacedName
}

func (s operatorState) running() []types.NamespacedName {
	return append(append([]types.NamespacedName{}, s.ready...), s.unready...)
}

// judgeOperator finds the operator's replicas, and says why none runs.
func (k *collector) judgeOperator(ctx context.Context) {
	if k.absent[whatMesh] {
		k.operator.down = true // said by that Fairway isn't installed
		return
	}
	var pods []corev1.Pod
	for i := range k.pods {
		p := &k.pods[i]
		if p.Namespace != k.system || p.Labels[names.LabelComponent] != names.ComponentOperator ||
			p.DeletionTimestamp != nil {
			continue
		}
		pods = append(pods, *p)
		switch key := client.ObjectKeyFromObject(p); {
		case p.Status.Phase != corev1.PodRunning:
		case podReady(p):
			k.operator.ready = append(k.operator.ready, key)
		default:
			k.operator.unready = append(k.operator.unready, key)
		}
	}
	for _, o := range k.operator.running() {
		k.report.Mesh.Operators = append(k.report.Mesh.Operators, o.String())
	}
	if k.unread[whatPods] {
		return
	}
	k.report.Mesh.OperatorsReady = new(len(k.operator.ready))
	why := troubles(pods, "")
	switch {
	case len(k.operator.ready) == 0:
		k.operator.down = true
		k.problem(operatorDown, "Deployment "+k.system+"/"+names.OperatorDeployment, "%s", k.whyNoOperator(ctx, pods, why))
	case why != "":
		k.problem(operatorDown, "Deployment "+k.system+"/"+names.OperatorDeployment,
			"not all replicas of the operator are ready (%d of %d are): %s", len(k.operator.ready), len(pods), why)
	}
}

// whyNoOperator prefers what its Deployment says where there are no pods to ask.
func (k *collector) whyNoOperator(ctx context.Context, pods []corev1.Pod, why string) string {
	if len(pods) > 0 {
		if why == "" {
			why = "its pods are starting"
		}
		return fmt.Sprintf("the operator does not run, none of its replicas is ready: %s", why)
	}
	var all appsv1.DeploymentList
	if err := k.client.List(ctx, &all, client.InNamespace(k.system),
		client.MatchingLabels{names.LabelComponent: names.ComponentOperator}); err == nil && len(all.Items) > 0 {
		d := &all.Items[0]
		if d.Spec.Replicas != nil && *d.Spec.Replicas == 0 {
			return fmt.Sprintf("the operator does not run: its Deployment %s/%s has 0 replicas, set some", d.Namespace, d.Name)
		}
		if why := replicaFailure(d); why != "" {
			return "the operator does not run: no pods can be made: " + why
		}
		return fmt.Sprintf("the operator does not run: its Deployment %s/%s has no pods yet", d.Namespace, d.Name)
	}
	return fmt.Sprintf("no operator runs in namespace %s (label %s=%s): install it, or name its namespace with "+
		"--system-namespace", k.system, names.LabelComponent, names.ComponentOperator)
}
