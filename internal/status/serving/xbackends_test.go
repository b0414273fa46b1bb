// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"testing"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwxv1alpha1 "sigs.k8s.io/gateway-api/apisx/v1alpha1"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestAnXBackendSaysWhoUsesIt: a Service whose requests leave by it has an entry while they do, and what other
// controllers say stays.
func TestAnXBackendSaysWhoUsesIt(t *testing.T) {
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, gwxv1alpha1.Install(s))
	cfg := apiserver.Start(t, apiserver.Options{GatewayAPI: apiserver.Experimental})
	c, err := client.New(cfg, client.Options{Scheme: s})
	require.NoError(t, err)
	require.NoError(t, c.Create(t.Context(), &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bookshop"}}))
	b := &gwxv1alpha1.XBackend{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "stripe"},
		Spec: gwxv1alpha1.BackendSpec{
			Type: gwxv1alpha1.BackendTypeExternalHostname, Port: gwxv1alpha1.BackendPort{Port: 443},
			ExternalHostname: &gwxv1alpha1.ExternalHostnameBackend{Hostname: "api.stripe.example"},
			TLS: &gwxv1alpha1.BackendTLS{
				Mode: gwxv1alpha1.BackendTLSModeServerOnly,
				Validation: gwv1.BackendTLSPolicyValidation{
					Hostname: "api.stripe.example", WellKnownCACertificates: new(gwv1.WellKnownCACertificatesSystem),
				},
			},
		},
	}
	require.NoError(t, c.Create(t.Context(), b))
	user := func(name string) gwv1.ParentReference {
		return gwv1.ParentReference{
			Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Namespace: new(gwv1.Namespace("bookshop")),
			Name: gwv1.ObjectName(name),
		}
	}
	accepted := []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}}
	theirs := accepted[0]
	theirs.LastTransitionTime = metav1.Unix(1000, 0)
	others := gwxv1alpha1.BackendAncestorStatus{
		AncestorRef: user("theirs"), ControllerName: "example.org/other", Conditions: []metav1.Condition{theirs},
	}
	b.Status.Ancestors = []gwxv1alpha1.BackendAncestorStatus{others}
	require.NoError(t, c.Status().Update(t.Context(), b))

	cluster := scope.Key(xds.TypeCluster, names.External("bookshop", "stripe", "1"))
	book := newBook("w-0")
	book.say("w-0", cluster, xds.Pending)
	w := NewEntries(c, book, logr.Discard())
	go func() { _ = w.Start(t.Context()) }()
	ref, ok := ingest.ReportRef(b)
	require.True(t, ok)
	report := func(parents ...ingest.ParentReport) {
		w.Report(ref, &ingest.Report{Ref: ref, UID: b.UID, Generation: 1, Parents: parents})
	}
	ours := func() (out []gwxv1alpha1.BackendAncestorStatus) {
		require.NoError(t, c.Get(t.Context(), client.ObjectKeyFromObject(b), b))
		require.Contains(t, b.Status.Ancestors, others)
		for _, a := range b.Status.Ancestors {
			if a.ControllerName == names.MeshController {
				out = append(out, a)
			}
		}
		return out
	}
	programmed := func(is metav1.ConditionStatus) func() bool {
		return func() bool {
			all := ours()
			return len(all) == 1 && all[0].AncestorRef.Name == "payments" &&
				meta.IsStatusConditionTrue(all[0].Conditions, "Accepted") &&
				meta.IsStatusConditionPresentAndEqual(all[0].Conditions, "Programmed", is)
		}
	}
	report(ingest.ParentReport{
		Ref: user("payments"), Conditions: accepted, Waypoint: waypoint, Clusters: []string{cluster.Name},
	})
	eventually.True(t, "pending", programmed(metav1.ConditionFalse))
	book.say("w-0", cluster, xds.Acked)
	w.Acknowledged(cluster)
	eventually.True(t, "programmed", programmed(metav1.ConditionTrue))
	report()
	eventually.True(t, "no entry of ours once nobody uses it", func() bool { return len(ours()) == 0 })
}
