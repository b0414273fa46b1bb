// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	metricsserver "sigs.k8s.io/controller-runtime/pkg/metrics/server"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/spire/spiretest"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestIdentityOfSPIRE: a replica has its identity of a real SPIRE while the Mesh says so, its conditions say what is
// missing, and nothing of a CA is kept.
func TestIdentityOfSPIRE(t *testing.T) {
	s := spiretest.Start(t)
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true})
	mgr, err := ctrl.NewManager(cfg, ctrl.Options{
		Scheme: scheme(), Logger: logr.Discard(), Metrics: metricsserver.Options{BindAddress: "0"},
	})
	require.NoError(t, err)
	o := Options{Namespace: names.SystemNamespace, PodName: "operator-1", Log: logr.Discard()}
	i, err := newIssuance(t.Context(), mgr, o)
	require.NoError(t, err)
	i.spire.dir = filepath.Join(s.Dir, "unmounted")
	_ = i.authority.MutualConfig(o.Namespace, names.OperatorServiceAccount) // a server that takes the identity
	require.NoError(t, followSPIRE(t.Context(), mgr, i.spire))
	go func() { _ = mgr.Start(t.Context()) }()
	c, err := client.New(cfg, client.Options{Scheme: scheme()})
	require.NoError(t, err)
	mesh := &v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh},
		Spec: v1alpha1.MeshSpec{TrustDomain: spiretest.TrustDomain, Certificates: &v1alpha1.Certificates{
			SPIRE: &v1alpha1.SPIRECertificates{AdminSocket: v1alpha1.HostPath(s.Admin)},
		}},
	}
	require.NoError(t, c.Create(t.Context(), mesh))
	certificates := i.certificates(mgr, o)
	says := func(reason, text string) (status controllers.CertificatesStatus) {
		t.Helper()
		eventually.True(t, reason+": "+text, func() bool {
			var err error
			status, err = certificates.Reconcile(t.Context(), mesh)
			return err == nil && status.Reason == reason && strings.Contains(status.Message, text)
		})
		return status
	}
	says(v1alpha1.MeshReasonSPIRENotReady, "component config/components/spire")
	require.Error(t, i.authority.Ready())

	i.spire.mu.Lock()
	i.spire.dir = filepath.Dir(s.Workload)
	i.spire.mu.Unlock()
	require.NoError(t, i.spire.set(t.Context(), mesh))
	says(v1alpha1.MeshReasonSPIRENotReady, "no registration entry")
	id := names.SPIFFEID(spiretest.TrustDomain, names.SystemNamespace, names.OperatorServiceAccount)
	s.Entry(id, 20, spiretest.Me())
	status := says(v1alpha1.MeshReasonIssued, "SPIRE gives the identities of trust domain "+spiretest.TrustDomain)
	require.True(t, status.Ready && status.Signing)
	require.NoError(t, i.authority.Ready())
	require.Empty(t, status.Renewal)
	err = c.Get(t.Context(), client.ObjectKey{Namespace: names.SystemNamespace, Name: names.CASecret}, &corev1.Secret{})
	require.True(t, apierrors.IsNotFound(err), err)

	s.StopAgent()
	eventually.True(t, "that the agent is away is remembered", func() bool { return i.renewals.Summary().Any })
	require.NoError(t, i.authority.Ready(), "what there is holds")
	lost := says(v1alpha1.MeshReasonSPIRENotReady, "doesn't answer")
	require.False(t, lost.Signing)

	require.NoError(t, c.Delete(t.Context(), mesh))
	require.NoError(t, c.Create(t.Context(), &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}))
	eventually.True(t, "a new Mesh may have another source", func() bool {
		err := i.authority.Ready()
		return err != nil && strings.Contains(err.Error(), "no CA yet")
	})
	require.LessOrEqual(t, time.Until(status.Next), renewalLook)
}
