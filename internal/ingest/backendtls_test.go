// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/testca"
)

// worldOfTLS is a namespace in the mesh.
func worldOfTLS(t *testing.T) *world {
	w := newWorld()
	w.set(t, readManifests(t, "testdata/mesh.yaml")...)
	w.set(t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "shop", Labels: map[string]string{"fairway.dev/mesh": "enabled"},
	}})
	return w
}

func configMap(name, ca string) *corev1.ConfigMap {
	return &corev1.ConfigMap{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}, Data: map[string]string{cluster.CAKey: ca},
	}
}

// verifying is a policy for a Service of its name.
func verifying(name string, created int64, configMaps ...string) *gwv1.BackendTLSPolicy {
	p := &gwv1.BackendTLSPolicy{}
	p.Namespace, p.Name, p.CreationTimestamp = "shop", name, metav1.NewTime(time.Unix(created, 0))
	p.Spec.TargetRefs = []gwv1.LocalPolicyTargetReferenceWithSectionName{{
		LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: gwv1.ObjectName(name)},
	}}
	p.Spec.Validation.Hostname = "app.example.org"
	for _, cm := range configMaps {
		p.Spec.Validation.CACertificateRefs = append(p.Spec.Validation.CACertificateRefs,
			gwv1.LocalObjectReference{Kind: "ConfigMap", Name: gwv1.ObjectName(cm)})
	}
	return p
}

func serviceOfPorts(name string, ports int) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: name}}
	for n := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("p", n), Port: int32(n + 1)})
	}
	return s
}

// TestCertificatesOfANamespace are bounded, counted for each port. The oldest policies have what there is; what is too
// much refuses, until there is room.
func TestCertificatesOfANamespace(t *testing.T) {
	w := worldOfTLS(t)
	var bundle strings.Builder
	for range 50 {
		bundle.Write(testca.New(t, "example.org").PEM())
	}
	require.Less(t, bundle.Len(), MostCABytes)
	ports := MostCABytesOfNamespace / bundle.Len() * 2 / 3
	w.set(t, configMap("ca", bundle.String()), serviceOfPorts("first", ports), serviceOfPorts("second", ports),
		verifying("second", 2, "ca"), verifying("first", 1, "ca"))
	of := func(service string) *model.BackendTLS {
		w.graph.Flush()
		return w.in.Upstream.Get(nil, model.ServicePort{Namespace: "shop", Service: service, Port: 1}).TLS
	}
	said := func(policy string) *metav1.Condition {
		r := w.in.Report.Get(nil, model.ObjectRef{Kind: kindBackendTLS, Namespace: "shop", Name: policy})
		return meta.FindStatusCondition(r.Parents[0].Conditions, string(gwv1.PolicyConditionAccepted))
	}
	require.Equal(t, bundle.String(), of("first").CAs)
	require.True(t, of("second").Refused)
	require.Equal(t, string(gwv1.PolicyReasonInvalid), said("second").Reason)
	require.Contains(t, said("second").Message, "16 MiB")
	require.EqualValues(t, "True", said("first").Status)
	w.set(t, serviceOfPorts("first", ports/3))
	require.False(t, of("second").Refused)
	require.EqualValues(t, "True", said("second").Status)
}

// TestConfigMapsThatAreNotRead: of too many, and of one that is too large, a policy says so, and refuses.
func TestConfigMapsThatAreNotRead(t *testing.T) {
	w := worldOfTLS(t)
	good := string(testca.New(t, "example.org").PEM())
	w.set(t, serviceOfPorts("web", 1), configMap("large", strings.Repeat("#\n", MostCABytes/2)+good))
	w.set(t, verifying("web", 1, "large"))
	for n := range cluster.MostReferences / 8 {
		var refs []string
		for m := range 8 {
			refs = append(refs, fmt.Sprintf("a%d-%d", n, m))
		}
		w.set(t, verifying(fmt.Sprint("other", n), 1, refs...))
	}
	resolved := func() string {
		w.graph.Flush()
		require.True(t, w.in.Upstream.Get(nil, model.ServicePort{Namespace: "shop", Service: "web", Port: 1}).TLS.Refused)
		r := w.in.Report.Get(nil, model.ObjectRef{Kind: kindBackendTLS, Namespace: "shop", Name: "web"})
		return meta.FindStatusCondition(r.Parents[0].Conditions, "ResolvedRefs").Message
	}
	require.Contains(t, resolved(), "refer to more than 64 ConfigMaps")
	w.delete(t, verifying("other0", 1))
	require.Contains(t, resolved(), "has more than 32 KiB")
}
