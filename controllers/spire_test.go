// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestProxiesOfSPIRE: node proxies and waypoints have SPIRE's sockets, and wait for no trust bundle of the operator's.
func TestProxiesOfSPIRE(t *testing.T) {
	o := start(t, shared.Config(t))
	ns := o.namespace("shop-")
	bundle := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{
		Namespace: o.system, Name: names.TrustBundleConfigMap,
	}}
	require.NoError(t, client.IgnoreNotFound(o.Delete(t.Context(), bundle)))
	o.create(waypoint(ns, "waypoint"), &v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh},
		Spec: v1alpha1.MeshSpec{TrustDomain: "corp.example", Certificates: &v1alpha1.Certificates{
			SPIRE: &v1alpha1.SPIRECertificates{AdminSocket: "/run/spire/admin.sock", WorkloadSocket: "api.sock"},
		}},
	})
	agent := func(p corev1.PodSpec) []string {
		for _, c := range p.Containers {
			if c.Name == "agent" {
				return c.Args
			}
		}
		return nil
	}
	ds := get(o, "node proxies", o.system, names.NodeDaemonSet, exists[*appsv1.DaemonSet])
	require.Contains(t, agent(ds.Spec.Template.Spec), "--spire-admin-socket=/run/spire/admin.sock")
	require.Contains(t, agent(ds.Spec.Template.Spec), "--trust-domain=corp.example")
	d := get(o, "deployment", ns, "waypoint", exists[*appsv1.Deployment])
	require.Contains(t, agent(d.Spec.Template.Spec), "--spire-workload-socket="+names.SPIREDir+"/api.sock")
	err := o.Get(t.Context(), client.ObjectKey{Namespace: ns, Name: "waypoint-" + names.TrustBundleConfigMap},
		&corev1.ConfigMap{})
	require.True(t, apierrors.IsNotFound(err), err)
}
