// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"fmt"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/counts"
)

func podAt(ns, name, node string, addresses ...string) *corev1.Pod {
	p := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}, Spec: corev1.PodSpec{NodeName: node}}
	for _, a := range addresses {
		p.Status.PodIPs = append(p.Status.PodIPs, corev1.PodIP{IP: a})
	}
	return p
}

func captured(p *corev1.Pod) *corev1.Pod {
	p.Status.Conditions = []corev1.PodCondition{{Type: v1alpha1.PodConditionCaptured, Status: corev1.ConditionTrue}}
	return p
}

// TestWhoseAnAddressIs: a pod's, of the mesh or not, a node's, by its address, its pods' or its range, or nobody's.
func TestWhoseAnAddressIs(t *testing.T) {
	o := newOrigins(nil)
	host := podAt("kube-system", "cni", "n1", "192.168.0.1")
	host.Spec.HostNetwork = true
	for _, p := range []*corev1.Pod{
		podAt("legacy", "a", "n1", "10.0.0.1", "fd00::1"), captured(podAt("shop", "b", "n1", "10.0.0.2")), host,
	} {
		o.pod(nil, p)
	}
	o.node(&corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "n2"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.0.1.0/24", "made up"}},
		Status: corev1.NodeStatus{Addresses: []corev1.NodeAddress{{Address: "192.168.0.2"}, {Address: "n2"}}},
	})
	legacy := counts.Origin{Kind: counts.OriginPod, Namespace: "legacy"}
	node, outside := counts.Origin{Kind: counts.OriginNode}, counts.Origin{Kind: counts.OriginOutside}
	for address, want := range map[string]counts.Origin{
		"10.0.0.1": legacy, "fd00::1": legacy, "::ffff:10.0.0.1": legacy,
		"10.0.0.2": {Kind: counts.OriginMember, Namespace: "shop"}, "192.168.0.1": node, "192.168.0.2": node,
		"10.0.1.1": node, "127.0.0.1": node, "203.0.113.5": outside, counts.Others: {Kind: counts.OriginOthers},
	} {
		require.Equal(t, want, o.of(address), address)
	}

	// Who called is told a while later, when the pod may be gone; another may have its address by then.
	o.pod(podAt("legacy", "a", "n1", "10.0.0.1", "fd00::1"), nil)
	require.Equal(t, legacy, o.of("10.0.0.1"))
	o.pod(nil, podAt("new", "c", "n1", "10.0.0.1"))
	require.Equal(t, "new", o.of("10.0.0.1").Namespace)
	for n := range maxGone + 1 {
		name, address := fmt.Sprint("p", n), fmt.Sprintf("10.9.%d.%d", n/250, n%250)
		p := podAt("gone", name, "n1", address)
		o.pod(nil, p)
		o.pod(p, nil)
	}
	require.LessOrEqual(t, len(o.addresses), maxGone+4)
	require.Equal(t, "new", o.of("10.0.0.1").Namespace, "what is in use stays")
}

func TestWorkloadsByTheirOwners(t *testing.T) {
	owned := func(kind, name, hash string) *corev1.Pod {
		p := podAt("shop", "web-5d-x", "n1")
		p.Labels = map[string]string{appsv1.DefaultDeploymentUniqueLabelKey: hash}
		p.OwnerReferences = []metav1.OwnerReference{{Kind: kind, Name: name, Controller: new(true)}}
		return p
	}
	for want, p := range map[string]*corev1.Pod{
		"web": owned("ReplicaSet", "web-5d", "5d"), "db": owned("StatefulSet", "db", ""),
		"alone": podAt("shop", "alone", "n1"),
	} {
		require.Equal(t, counts.Workload{Namespace: "shop", Name: want}, workloadOf(p))
	}
}

// TestPlainTextIsSummedUp, of what is told here and to other replicas, once each; and nobody is believed about pods of
// other nodes.
func TestPlainTextIsSummedUp(t *testing.T) {
	replica := func() (*callers, *prometheus.Registry) {
		r := prometheus.NewRegistry()
		pods := map[types.NamespacedName]*corev1.Pod{}
		find := func(key types.NamespacedName) (*corev1.Pod, bool) { return pods[key], pods[key] != nil }
		c := newCallers(newOrigins(find), r)
		c.grown, c.tell = func([]counts.Growth) {}, func(string, string) {}
		for _, p := range []*corev1.Pod{
			podAt("legacy", "a", "n1", "10.0.0.1"), captured(podAt("shop", "web", "n1", "10.0.0.2")),
		} {
			pods[types.NamespacedName{Namespace: p.Namespace, Name: p.Name}] = p
			c.origins.pod(nil, p)
		}
		return c, r
	}
	a, measured := replica()
	b, elsewhere := replica()
	a.tell = func(_, fact string) { b.told(fact); b.told(fact) }
	now := time.Now()
	count := func(kind counts.Kind, to, from string, value uint64) counts.Count {
		s := counts.Series{Kind: kind, Destination: to, Source: from}
		return counts.Count{Series: s, Value: value, Since: now, Last: now}
	}
	told := []counts.Count{
		count(counts.Plaintext, "shop/web", "10.0.0.1", 120), count(counts.Strict, "shop/web", "203.0.113.5", 2),
		count(counts.Plaintext, "shop/other", "10.0.0.1", 9),
	}
	a.take(counts.Source{Scope: "node/n1", Proxy: "1"}, told)
	a.take(counts.Source{Scope: "node/n1", Proxy: "1"}, told)
	a.take(counts.Source{Scope: "node/n2", Proxy: "2"}, told)
	a.take(counts.Source{Scope: "waypoint/shop/w", Proxy: "3"}, told)
	b.told("no fact")
	web := counts.Workload{Namespace: "shop", Name: "web"}
	want := []counts.Stranger{
		{Workload: web, From: counts.Origin{Kind: counts.OriginPod, Namespace: "legacy"}, LetIn: 120},
		{Workload: web, From: counts.Origin{Kind: counts.OriginOutside}, Refused: 2},
	}
	require.Equal(t, want, a.strangers.List())
	require.Equal(t, want, b.strangers.List())
	sums := func(r *prometheus.Registry) (out map[string]float64) {
		families, err := r.Gather()
		require.NoError(t, err)
		out = map[string]float64{}
		for _, f := range families {
			for _, m := range f.GetMetric() {
				name := ""
				for _, l := range m.GetLabel() {
					name += l.GetValue() + " "
				}
				out[name] = m.GetCounter().GetValue()
			}
		}
		return out
	}
	require.Equal(t, map[string]float64{"web shop false pod legacy ": 120, "web shop true outside  ": 2}, sums(measured))
	require.Empty(t, sums(elsewhere), "who is connected elsewhere is measured there")
}
