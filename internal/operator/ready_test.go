// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/config"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/engine"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

func ask() *http.Request { return httptest.NewRequest(http.MethodGet, "/readyz", http.NoBody) }

func TestReadyNamesWhatIsMissing(t *testing.T) {
	signs := errors.New("no CA yet")
	r := newReadiness(func(context.Context) error { return signs })
	b, a := r.await("b"), r.await("a")
	require.ErrorContains(t, r.check(ask()), "a, b")
	a()
	a()
	require.ErrorContains(t, r.check(ask()), "waiting for: b")
	b()
	require.ErrorContains(t, r.check(ask()), "no CA yet")
	<-r.started
	signs = nil
	require.NoError(t, r.check(ask()))
}

// TestReadyWaitsForAStart: one that takes no longer than usual is no Warning of kubelet's.
func TestReadyWaitsForAStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newReadiness(func(context.Context) error { return nil })
		r.patience = readyPatience
		done := r.await("a")
		time.AfterFunc(readyPatience/2, done)
		require.NoError(t, r.check(ask()))
		r = newReadiness(nil)
		r.patience = readyPatience
		_ = r.await("a")
		began := time.Now()
		require.ErrorContains(t, r.check(ask()), "waiting for: a")
		require.Equal(t, readyPatience, time.Since(began))
	})
}

// TestNotReadyWhileAWatchFails runs the feed on a real API server, as a user that may not read one kind.
func TestNotReadyWhileAWatchFails(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
	admin, err := client.New(cfg, client.Options{Scheme: scheme()})
	require.NoError(t, err)
	const user = "reader"
	grant := func(name, group string, resources ...string) {
		meta := metav1.ObjectMeta{Name: name}
		require.NoError(t, admin.Create(t.Context(), &rbacv1.ClusterRole{ObjectMeta: meta, Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{group}, Resources: resources, Verbs: []string{"get", "list", "watch"}},
		}}))
		require.NoError(t, admin.Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: meta, RoleRef: rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects: []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: user}},
		}))
	}
	grant("core", "", "namespaces", "nodes", "services", "pods")
	grant("mesh", v1alpha1.GroupVersion.Group, "meshes", "proxyparameters", "authorizationpolicies",
		"trafficpolicies", "authenticationpolicies", "httpextensions")
	grant("routes", "gateway.networking.k8s.io", "*")
	grant("crds", "apiextensions.k8s.io", "customresourcedefinitions")

	authority := identity.NewAuthority(time.Now)
	limited := rest.CopyConfig(cfg)
	limited.Impersonate.UserName = user
	ready, stop := runFeed(t, limited, authority)
	defer stop()
	eventually.True(t, "what is missing is the watch of EndpointSlices", func() bool {
		return ready.missing() == "the state of the cluster, watch of EndpointSlice (discovery.k8s.io/v1)"
	})
	require.ErrorContains(t, ready.check(ask()), "EndpointSlice")

	grant("slices", "discovery.k8s.io", "endpointslices")
	eventually.True(t, "without a Mesh no CA is needed", func() bool { return ready.check(ask()) == nil })

	mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
	require.NoError(t, admin.Create(t.Context(), mesh))
	eventually.True(t, "not ready: the Mesh needs a CA", func() bool { return ready.check(ask()) != nil })
	require.ErrorContains(t, ready.check(ask()), "no CA yet")
}

func runFeed(t *testing.T, cfg *rest.Config, authority *identity.Authority) (*readiness, context.CancelFunc) {
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
		Controller: config.Controller{SkipNameValidation: new(true)},
	})
	require.NoError(t, err)
	kinds, err := controllers.NewKinds(mgr)
	require.NoError(t, err)
	e := engine.New(engine.Options{Cache: xds.NewCache(), Log: logr.Discard()})
	ready := newReadiness(signing(mgr.GetCache(), authority))
	ctx, cancel := context.WithCancel(t.Context())
	configMaps, err := configMapsOf(mgr)
	require.NoError(t, err)
	f := &feed{
		references: newReferences(ctx, configMaps, e.Inbox),
		cache:      mgr.GetCache(), inbox: e.Inbox, kinds: kinds, scheme: mgr.GetScheme(), log: logr.Discard(),
		ready: ready, taken: ready.await("the state of the cluster"), pod: func(_, _ *corev1.Pod) {},
		touched: func(_, _ client.Object) {},
	}
	require.NoError(t, mgr.Add(f))
	require.NoError(t, mgr.Add(everyReplica(e.Run)))
	ended := make(chan error, 1)
	go func() { ended <- mgr.Start(ctx) }()
	return ready, func() {
		cancel()
		require.NoError(t, <-ended)
	}
}
