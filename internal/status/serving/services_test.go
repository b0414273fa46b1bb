// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// TestAServiceOfWhichNothingIsKnownKeepsWhatItSays: when the operator starts, the watch tells of a Service, and the
// engine of its endpoints, before the engine has found its binding. What the Service says decides who may reach it
// meanwhile.
func TestAServiceOfWhichNothingIsKnownKeepsWhatItSays(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		svc := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"}}
		svc.Status.Conditions = []metav1.Condition{
			boundCondition(ingest.Binding{Waypoint: waypoint}), {Type: "example.org/Theirs", Status: "True", Reason: "X"},
		}
		s := runtime.NewScheme()
		require.NoError(t, corev1.AddToScheme(s))
		c := fake.NewClientBuilder().WithScheme(s).WithObjects(svc).WithStatusSubresource(svc).Build()
		w := NewServices(c, events.NewFakeRecorder(4), logr.Discard())
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { defer close(ended); _ = w.Start(ctx) }()
		key := client.ObjectKeyFromObject(svc)
		has := func(kind string) bool {
			synctest.Wait()
			require.NoError(t, c.Get(t.Context(), key, svc))
			return meta.FindStatusCondition(svc.Status.Conditions, kind) != nil
		}
		w.Touch(key)
		w.LeftOut(key, ingest.LeftOut{})
		require.True(t, has(v1alpha1.ServiceConditionWaypointBound))
		w.Bound(key, ingest.Binding{})
		require.False(t, has(v1alpha1.ServiceConditionWaypointBound))
		require.True(t, has("example.org/Theirs"))
		require.True(t, w.Cleared())
		cancel()
		<-ended
	})
}
