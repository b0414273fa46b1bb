// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net"
	"strconv"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

func TestEndpointsComeAndGoUnderTraffic(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.captured("client", "server")
	s.answers("client", "http://server/", "server")
	first := s.pod("server").Name

	steady := s.steady("client", "http://server/")
	s.scale("server", 3)
	s.captured("server")
	seen := map[string]bool{}
	eventually.Passes(t, "answers of all three pods", func(look require.TestingT) {
		a, err := s.get("client", "http://server/")
		require.NoError(look, err)
		seen[a.Pod] = true
		require.Len(look, seen, 3, "all three pods answer")
	})
	require.NoError(t, world.client.Delete(t.Context(), &corev1.Pod{ObjectMeta: s.pod("server").ObjectMeta}))
	s.ready("server")
	s.scale("server", 1)
	total := steady.end()
	require.Empty(t, total.failures(), "of %v", total)
	t.Logf("%v; first pod was %s", total, first)
}

func TestServiceWithoutEndpointsRefuses(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.service("nobody", "nobody")
	s.captured("client")
	s.refuses("client", "http://nobody/")
	// Once there is someone, it answers: a refusal is not remembered.
	s.server("nobody")
	s.answers("client", "http://nobody/", "nobody")
}

func TestHeadlessService(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("headless", "server", func(svc *corev1.Service) { svc.Spec.ClusterIP = corev1.ClusterIPNone })
	s.captured("client", "server")
	start := since()
	s.answers("client", "http://headless:8080/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
}

func TestPodByAddress(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.captured("client", "server")
	start := since()
	s.answers("client", "http://"+net.JoinHostPort(s.pod("server").Status.PodIP, "8080")+"/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	// A pod's own address from within, too.
	s.answers("server", "http://"+net.JoinHostPort(s.pod("server").Status.PodIP, "8080")+"/", "server")
}

func TestNamedTargetPortsThatDiffer(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	common := func(d *deployment) { d.Spec.Template.Labels["group"] = "both" }
	s.server("one", common)
	s.server("two", listeningOn(9090), common)
	s.service("both", "", func(svc *corev1.Service) { svc.Spec.Selector = map[string]string{"group": "both"} })
	s.captured("client", "one", "two")
	eventually.Passes(t, "answers of both servers", func(look require.TestingT) {
		got := s.many("client", 20, "http://both/")
		require.Positive(look, got.of("one"), "%v", got)
		require.Positive(look, got.of("two"), "%v", got)
		require.Empty(look, got.failures())
	})
}

func TestServiceWithSeveralPorts(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.server("server", arguments("serve", "--name=server", "--port=8080", "--port=8081"))
	s.service("server", "server", func(svc *corev1.Service) {
		svc.Spec.Ports = append(svc.Spec.Ports,
			corev1.ServicePort{Name: "by-number", Port: 81, TargetPort: intstr.FromInt32(8081)},
			corev1.ServicePort{Name: "nothing-there", Port: 82, TargetPort: intstr.FromInt32(8082)})
	})
	s.captured("client", "server")
	s.answers("client", "http://server:80/", "server")
	s.answers("client", "http://server:81/", "server")
	for _, port := range []int{82, 83} { // no listener behind it; no port of the Service
		s.refuses("client", fmt.Sprintf("http://server:%d/", port), "--timeout=5s")
	}
}

func TestNodePortAndLoadBalancer(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.server("server")
	s.client("client")
	s.client("host", onHostNetwork(18098), apartFrom("server"))
	svc := s.service("server", "server", func(svc *corev1.Service) { svc.Spec.Type = corev1.ServiceTypeLoadBalancer })
	s.captured("server", "client")
	nodePort := strconv.Itoa(int(svc.Spec.Ports[0].NodePort))
	node := s.pod("server").Status.HostIP
	for _, from := range []string{"host", "client"} {
		s.answers(from, "http://"+net.JoinHostPort(node, nodePort)+"/", "server")
	}
	address := ""
	eventually.Passes(t, "an address of the LoadBalancer", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(svc), svc))
		require.NotEmpty(look, svc.Status.LoadBalancer.Ingress, "the cluster gives the Service no LoadBalancer address")
		address = svc.Status.LoadBalancer.Ingress[0].IP
	})
	for _, from := range []string{"host", "client"} {
		s.answers(from, "http://"+address+"/", "server")
	}
	// Strict mode closes these doors as well: what comes through them has no certificate.
	s.label(names.LabelMTLSMode, names.MTLSStrict)
	s.refuses("host", "http://"+net.JoinHostPort(node, nodePort)+"/")
	s.refuses("host", "http://"+address+"/")
	s.answers("client", "http://server/", "server")
}
