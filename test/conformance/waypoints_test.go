// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package conformance

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/wait"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/gateway-api/conformance/utils/suite"
)

// waypointName is the waypoint that the suite's namespaces use from the start. An automatic one appears only with the
// first route, and some tests count answers at once, without asking whether their route is Programmed.
const waypointName = "waypoint"

// namespaceLabels are given to every namespace that the suite creates.
var namespaceLabels = map[string]string{"fairway.dev/mesh": "enabled", "fairway.dev/use-waypoint": waypointName}

// startWaypoints creates the suite's namespaces (the suite takes over what is there, and deletes it at its end) with a
// waypoint in each, and waits until the waypoints serve.
func startWaypoints(t *testing.T, c client.Client) {
	t.Helper()
	for _, ns := range []string{suite.MeshNamespace, suite.MeshConsumerNamespace} {
		eventually(t, "namespace "+ns, func(ctx context.Context) (bool, error) {
			// One that an earlier run left may still be going.
			err := c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: ns, Labels: namespaceLabels}})
			if !apierrors.IsAlreadyExists(err) {
				return err == nil, err
			}
			have := &corev1.Namespace{}
			err = c.Get(ctx, client.ObjectKey{Name: ns}, have)
			return err == nil && have.DeletionTimestamp == nil, client.IgnoreNotFound(err)
		})
		err := c.Create(t.Context(), &gwv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: waypointName},
			Spec: gwv1.GatewaySpec{
				GatewayClassName: "fairway-waypoint",
				Listeners:        []gwv1.Listener{{Name: "mesh", Port: 15008, Protocol: "fairway.dev/MTLS"}},
			},
		})
		require.NoError(t, client.IgnoreAlreadyExists(err))
	}
	for _, ns := range []string{suite.MeshNamespace, suite.MeshConsumerNamespace} {
		eventually(t, "waypoint of "+ns, func(ctx context.Context) (bool, error) {
			gw := &gwv1.Gateway{}
			err := c.Get(ctx, client.ObjectKey{Namespace: ns, Name: waypointName}, gw)
			return err == nil && meta.IsStatusConditionTrue(gw.Status.Conditions, string(gwv1.GatewayConditionProgrammed)), err
		})
	}
}

func eventually(t *testing.T, what string, f wait.ConditionWithContextFunc) {
	t.Helper()
	require.NoError(t, wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, 3*time.Minute, true, f), what)
}
