// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/model"
)

// largeTraffic is a policy with all that the schema has room for, for so many Services.
func largeTraffic(name string, created int64, services ...string) *v1alpha1.TrafficPolicy {
	long := strings.Repeat("x", 128)
	out := &v1alpha1.TrafficPolicy{
		TypeMeta: metav1.TypeMeta{Kind: cluster.NameOf((*v1alpha1.TrafficPolicy)(nil))},
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: name, UID: types.UID(name), CreationTimestamp: metav1.Unix(created, 0),
		},
	}
	for _, s := range services {
		out.Spec.TargetRefs = append(out.Spec.TargetRefs, gwv1.LocalPolicyTargetReferenceWithSectionName{
			LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: gwv1.ObjectName(s)},
		})
	}
	var entries []v1alpha1.RateLimitEntry
	for range 4 {
		entries = append(entries, v1alpha1.RateLimitEntry{Key: long, Value: &long})
	}
	d := v1alpha1.RateLimitDescriptor{Entries: entries}
	out.Spec.RateLimit = &v1alpha1.RateLimit{
		Local: &v1alpha1.LocalRateLimit{Requests: 1, Unit: v1alpha1.RateLimitSecond},
		Global: &v1alpha1.GlobalRateLimit{
			Domain: long, Descriptors: []v1alpha1.RateLimitDescriptor{d, d, d, d},
			BackendRef: gwv1.BackendObjectReference{Name: "s0", Port: new(gwv1.PortNumber(1))},
		},
	}
	return out
}

// TestTooMuchTraffic: of the policies of a namespace that are too much together the youngest is in force nowhere, and
// says so with the figures; what was there before it stays, and it is in force once there is room.
func TestTooMuchTraffic(t *testing.T) {
	const services, ports = 32, 90
	w := newWorld()
	w.set(t, readManifests(t, "testdata/mesh.yaml")...)
	var all []string
	for n := range services {
		address := netip.AddrFrom4([4]byte{10, 96, 1, byte(n)}).String()
		s := &corev1.Service{
			TypeMeta:   metav1.TypeMeta{Kind: "Service"},
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: fmt.Sprint("s", n)},
			Spec:       corev1.ServiceSpec{ClusterIP: address, ClusterIPs: []string{address}},
		}
		for p := range ports {
			s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: fmt.Sprint("http-", p), Port: int32(1 + p)})
		}
		w.set(t, s)
		all = append(all, s.Name)
	}
	w.set(t, largeTraffic("b-old", 1, all[:12]...), largeTraffic("a-young", 2, all[12:24]...))
	small := largeTraffic("c-small", 3, all[24])
	small.Spec.RateLimit.Global = nil
	w.set(t, small)
	w.flush()
	accepted := func(name string) *metav1.Condition {
		r := w.in.Report.Get(nil, model.ObjectRef{Kind: small.Kind, Namespace: "shop", Name: name})
		return meta.FindStatusCondition(r.Parents[0].Conditions, string(gwv1.PolicyConditionAccepted))
	}
	limits := func(service string) int32 {
		p := w.in.traffic.InForce.Get(nil, model.Attachment{
			Port: model.ServicePort{Namespace: "shop", Service: service, Port: 1},
		})
		require.NotNil(t, p)
		if p.Content.Requests.LocalLimit == nil {
			return 0
		}
		return int32(p.Content.Requests.LocalLimit.Requests)
	}
	require.Equal(t, string(gwv1.PolicyReasonAccepted), accepted("b-old").Reason)
	require.Equal(t, string(gwv1.PolicyReasonAccepted), accepted("c-small").Reason, "it fits beside the old one")
	over := accepted("a-young")
	require.Equal(t, v1alpha1.PolicyReasonOverBudget, over.Reason)
	for _, part := range []string{"othing of the policy is in force", "8388608 bytes", "older ones have", "Use fewer"} {
		require.Contains(t, over.Message, part)
	}
	require.EqualValues(t, 1, limits("s0"))
	require.EqualValues(t, 0, limits("s12"))
	require.EqualValues(t, 1, limits("s24"))

	fewer := largeTraffic("b-old", 1, all[0])
	fewer.Generation++
	w.set(t, fewer)
	w.flush()
	require.Equal(t, string(gwv1.PolicyReasonAccepted), accepted("a-young").Reason)
	require.EqualValues(t, 1, limits("s12"))
}

// TestCostOfTraffic: a policy costs what is in it, for each port that it names.
func TestCostOfTraffic(t *testing.T) {
	large, small := largeTraffic("p", 1).Spec, v1alpha1.TrafficPolicySpec{}
	require.Less(t, 10*bytesOfTraffic(small), bytesOfTraffic(large))
	require.Greater(t, 8<<10, bytesOfTraffic(large), "so security.md says: a few KB")
	held := v1alpha1.TrafficPolicySpec{Buffering: &v1alpha1.Buffering{MaxResponseKiB: new(int32(1))}}
	require.Less(t, bytesOfTraffic(small), bytesOfTraffic(held))
}
