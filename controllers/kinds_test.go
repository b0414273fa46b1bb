// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/envtest"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/gatewayapi"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestGatewayAPIAppears: without the Gateway API the operator runs and says what is missing; when its CRDs are
// installed, it goes on without a restart.
func TestGatewayAPIAppears(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true})
	o := start(t, cfg)
	o.mesh()
	get(o, "the Mesh tells", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		return condition(m.Status.Conditions, "GatewayAPIReady", metav1.ConditionFalse, "GatewayAPIMissing")
	})
	dir, err := apiserver.GatewayAPICRDs(apiserver.Standard)
	require.NoError(t, err)
	_, err = envtest.InstallCRDs(cfg, envtest.CRDInstallOptions{Paths: []string{dir}})
	require.NoError(t, err)
	get(o, "the class appears", "", names.WaypointClass, func(c *gwv1.GatewayClass) error {
		return condition(c.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted")
	})
	get(o, "the Mesh sees it", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		return condition(m.Status.Conditions, "GatewayAPIReady", metav1.ConditionTrue, "Installed")
	})
	ns := o.namespace("late-")
	o.create(waypoint(ns, "waypoint"))
	get(o, "waypoints work", ns, "waypoint", func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted")
	})
	o.laterGatewayAPI(cfg, ns)
	finishDaemonSet(o)
}

// laterGatewayAPI has the CRDs replaced by those of the later release that is supported, as users upgrade them.
func (o *operator) laterGatewayAPI(cfg *rest.Config, ns string) {
	supported := func(release, lacking string) {
		get(o, release+" is supported", "", names.WaypointClass, func(c *gwv1.GatewayClass) error {
			if said := messageOf(c.Status.Conditions, "SupportedVersion"); !strings.Contains(said, "Gateway API "+release) ||
				!strings.Contains(said, lacking) {
				return errors.New(said)
			}
			return condition(c.Status.Conditions, "SupportedVersion", metav1.ConditionTrue, "SupportedVersion")
		})
	}
	supported(gatewayapi.Built, "take the experimental channel")
	dir, err := apiserver.LaterGatewayAPICRDs(apiserver.Experimental)
	require.NoError(o.t, err)
	_, err = envtest.InstallCRDs(cfg, envtest.CRDInstallOptions{Paths: []string{dir}})
	require.NoError(o.t, err)
	supported("v1.7.", "take the fields that v1.6 has")
	o.create(waypoint(ns, "later"))
	get(o, "waypoints work with the later CRDs", ns, "later", func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted")
	})
}
