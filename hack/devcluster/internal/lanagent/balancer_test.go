// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package lanagent

import (
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

func service(uid string, change ...func(*corev1.Service)) *corev1.Service {
	s := &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: uid, UID: types.UID(uid)}}
	s.Spec.Type = corev1.ServiceTypeLoadBalancer
	for _, c := range change {
		c(s)
	}
	return s
}

func has(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) {
		s.Status.LoadBalancer.Ingress = []corev1.LoadBalancerIngress{{IP: ip}}
	}
}

func asks(ip string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.LoadBalancerIP = ip }
}

func TestAssign(t *testing.T) {
	class := "someone.else/class"
	got, err := assign([]*corev1.Service{
		service("new"),
		service("keeps", has("172.30.1.1")),
		service("claims the same", has("172.30.1.1")),
		service("asks", asks("172.30.1.9")),
		service("of another pool", has("192.0.2.1")),
		service("not ours", func(s *corev1.Service) { s.Spec.LoadBalancerClass = &class }),
		service("no balancer", func(s *corev1.Service) { s.Spec.Type = corev1.ServiceTypeClusterIP }),
	})
	if err != nil {
		t.Fatal(err)
	}
	want := map[types.UID]string{
		"keeps": "172.30.1.1", "new": "172.30.1.2", "claims the same": "172.30.1.3", "asks": "172.30.1.9",
		"of another pool": "172.30.1.4",
	}
	if len(got) != len(want) {
		t.Errorf("got %v", got)
	}
	for uid, ip := range want {
		if got[uid].String() != ip {
			t.Errorf("%s: got %s, want %s", uid, got[uid], ip)
		}
	}
}

func TestAssignRefuses(t *testing.T) {
	got, err := assign([]*corev1.Service{
		service("first", has("172.30.1.1")), service("second", asks("172.30.1.1")), service("third", asks("10.0.0.1")),
		service("fourth", asks("junk")),
	})
	if err == nil || len(got) != 1 {
		t.Errorf("got %v, %v", got, err)
	}
}

func TestAssignRunsOut(t *testing.T) {
	var all []*corev1.Service
	for i := range 300 {
		all = append(all, service(string(rune('a'+i))))
	}
	got, err := assign(all)
	if err == nil || len(got) != 255 {
		t.Errorf("got %d addresses, %v", len(got), err)
	}
}

func TestReadyOn(t *testing.T) {
	node, no := "node2", false
	slice := &discoveryv1.EndpointSlice{Endpoints: []discoveryv1.Endpoint{{NodeName: &node}}}
	if !readyOn(slice, "node2") || readyOn(slice, "node1") {
		t.Error("an endpoint is ready on its node unless it says otherwise")
	}
	slice.Endpoints[0].Conditions.Ready = &no
	if readyOn(slice, "node2") {
		t.Error("an endpoint that is not ready counts")
	}
}
