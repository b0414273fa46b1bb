// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package engine

import (
	"fmt"
	"net"
	"slices"
	"testing"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// guardedShop has workloads, each with a Service that waypoint wp serves, and policies for one of them each.
type guardedShop struct{ pods, workloads int }

func (s guardedShop) objects() []client.Object {
	out := []client.Object{
		&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}},
		&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "n1"}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.200.0.0/16"}}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
			Name: "shop", Labels: map[string]string{names.LabelMesh: names.MeshEnabled},
		}},
		&gwv1.GatewayClass{
			ObjectMeta: metav1.ObjectMeta{Name: names.WaypointClass},
			Spec:       gwv1.GatewayClassSpec{ControllerName: names.GatewayController},
		},
		&gwv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "wp"},
			Spec: gwv1.GatewaySpec{
				GatewayClassName: names.WaypointClass,
				Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: "fairway.dev/MTLS"}},
			},
			Status: gwv1.GatewayStatus{Conditions: []metav1.Condition{{
				Type: v1alpha1.GatewayConditionEstablished, Status: metav1.ConditionTrue,
			}}},
		},
	}
	for n := range s.pods {
		out = append(out, s.pod(n, n%s.workloads))
	}
	for n := range s.workloads {
		out = append(out, s.service(n), s.slice(n), s.policy(n))
	}
	return out
}

func (s guardedShop) pod(n, workload int) *corev1.Pod {
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: fmt.Sprint("pod-", n), UID: "u",
			Labels: map[string]string{"app": fmt.Sprint("app-", workload)},
		},
		Spec: corev1.PodSpec{NodeName: "n1", ServiceAccountName: "app"},
		Status: corev1.PodStatus{
			Phase: corev1.PodRunning, PodIPs: []corev1.PodIP{{IP: addressOf(n)}},
			Conditions: []corev1.PodCondition{{Type: v1alpha1.PodConditionCaptured, Status: corev1.ConditionTrue}},
		},
	}
}

func addressOf(pod int) string { return fmt.Sprintf("10.200.%d.%d", pod/200, pod%200+1) }

func (s guardedShop) service(workload int) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: fmt.Sprint("svc-", workload), Labels: map[string]string{names.LabelUseWaypoint: "wp"},
		},
		Spec: corev1.ServiceSpec{
			ClusterIPs: []string{fmt.Sprintf("10.96.0.%d", workload+1)},
			Selector:   map[string]string{"app": fmt.Sprint("app-", workload)},
			Ports:      []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
		},
	}
}

// slice of a Service lists its pods, and more.
func (s guardedShop) slice(workload int, more ...int) *discoveryv1.EndpointSlice {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "shop", Name: fmt.Sprint("svc-", workload, "-x"),
			Labels: map[string]string{discoveryv1.LabelServiceName: fmt.Sprint("svc-", workload)},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
	}
	for n := workload; n < s.pods; n += s.workloads {
		more = append(more, n)
	}
	for _, n := range more {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{addressOf(n)}})
	}
	return out
}

func (s guardedShop) policy(workload int) *v1alpha1.AuthorizationPolicy {
	p := twentyAccounts(workload, 0)
	p.Spec.TargetRefs[0].Selector = &metav1.LabelSelector{
		MatchLabels: map[string]string{"app": fmt.Sprint("app-", workload)},
	}
	return p
}

var shopWaypoint = cluster.Key{Namespace: "shop", Name: "wp"}

func endpointsOf(t testing.TB, h *harness, workload int) []string {
	return assigned(t, h, shopWaypoint, names.WaypointEndpoints("shop", fmt.Sprint("svc-", workload), 80))
}

// assigned are the addresses of a load assignment of a waypoint; those behind a tunnel by what they say.
func assigned(t testing.TB, h *harness, waypoint cluster.Key, name string) (out []string) {
	k := catalogue.WaypointScope(waypoint).Key(xds.TypeEndpoint, name)
	r, _ := h.cache.Get(k)
	require.NotNil(t, r)
	for _, l := range as[*endpointv3.ClusterLoadAssignment](t, r).GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			told := e.GetMetadata().GetFilterMetadata()[names.MetadataEndpoint].GetFields()[names.MetadataTarget]
			host, _, err := net.SplitHostPort(told.GetStringValue())
			require.NoError(t, err)
			out = append(out, host)
		}
	}
	slices.Sort(out)
	return out
}

// TestNoWaypointGoesPastAGuard: a pod that lets a waypoint in for its own Service's sake is no endpoint of another one
// that doesn't have it, from when it is guarded until it isn't, however it came to be listed.
func TestNoWaypointGoesPastAGuard(t *testing.T) {
	s := guardedShop{pods: 4, workloads: 2}
	h := newHarness(t)
	h.given(s.objects())
	h.subscribe(catalogue.WaypointScope(cluster.Key{Namespace: "shop", Name: "wp"}))
	at := func(pods ...int) (out []string) {
		for _, n := range pods {
			out = append(out, addressOf(n))
		}
		slices.Sort(out)
		return out
	}
	has := func(what string, workload int, pods ...int) {
		t.Helper()
		h.process()
		require.Equal(t, at(pods...), endpointsOf(t, h, workload), what)
	}
	has("its own", 0, 0, 2)
	h.Set(s.slice(0, 1))
	has("a pod of the other, by hand", 0, 0, 2)
	has("its own", 1, 1, 3)

	h.Delete(s.policy(1))
	has("nothing guards it", 0, 0, 1, 2)
	h.Set(s.policy(1))
	has("it is guarded again", 0, 0, 2)
	tried := s.policy(1)
	tried.Generation, tried.Spec.DryRun = 2, true
	h.Set(tried)
	has("its policy is tried only", 0, 0, 1, 2)
	h.Set(s.policy(1))

	h.Set(s.slice(0))
	h.Set(s.pod(2, 1))
	has("relabelled", 0, 0)
	has("relabelled, until the slice has it", 1, 1, 3)
	h.Set(s.slice(1, 2))
	has("the slice has it", 1, 1, 2, 3)
	h.Set(s.pod(2, 0))
	has("relabelled again", 0, 0, 2)
	has("relabelled again", 1, 1, 3)

	// The address goes to another pod before the slice knows.
	h.Delete(s.pod(2, 0))
	heir := s.pod(2, 1)
	heir.Name = "heir"
	h.Set(heir)
	has("the address is another's", 0, 0)
}

// TestNoWaypointGoesPastAGuardByTLS: likewise where a waypoint speaks TLS with the application.
func TestNoWaypointGoesPastAGuardByTLS(t *testing.T) {
	s := guardedShop{pods: 4, workloads: 2}
	h := newHarness(t)
	h.given(s.objects())
	h.Set(&gwv1.BackendTLSPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "shop", Name: "tls"},
		Spec: gwv1.BackendTLSPolicySpec{
			TargetRefs: []gwv1.LocalPolicyTargetReferenceWithSectionName{{
				LocalPolicyTargetReference: gwv1.LocalPolicyTargetReference{Kind: "Service", Name: "svc-0"},
			}},
			Validation: gwv1.BackendTLSPolicyValidation{
				Hostname: "app.example", WellKnownCACertificates: new(gwv1.WellKnownCACertificatesSystem),
			},
		},
	})
	// svc-0 must have requests for its waypoint to speak TLS with.
	svc := s.service(0)
	svc.Spec.Ports[0].AppProtocol = new("http")
	h.Set(svc)
	h.Set(s.slice(0, 1))
	h.subscribe(catalogue.WaypointScope(cluster.Key{Namespace: "shop", Name: "wp"}))
	h.process()
	at := names.TLSEndpoints("shop", "svc-0", 80)
	require.Equal(t, []string{addressOf(0), addressOf(2)}, assigned(t, h, shopWaypoint, at))
	h.Delete(s.policy(1))
	h.process()
	require.Equal(t, []string{addressOf(0), addressOf(1), addressOf(2)},
		assigned(t, h, shopWaypoint, at), "nothing guards it")
}

// TestAConsumerTakesNoEndpointsFromOthers: what a waypoint that a consumer's route leads from leaves out is there for
// the waypoint of the Service's own namespace.
func TestAConsumerTakesNoEndpointsFromOthers(t *testing.T) {
	s := guardedShop{pods: 2, workloads: 1}
	h := newHarness(t)
	h.given(s.objects())
	h.Delete(s.policy(0))
	waypoint := func(namespace string) *gwv1.Gateway {
		return &gwv1.Gateway{
			ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: "wp"},
			Spec: gwv1.GatewaySpec{
				GatewayClassName: names.WaypointClass,
				Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: "fairway.dev/MTLS"}},
			},
		}
	}
	service := func(namespace, name, vip string) *corev1.Service {
		return &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: namespace, Name: name, Labels: map[string]string{names.LabelUseWaypoint: "wp"},
			},
			Spec: corev1.ServiceSpec{
				ClusterIPs: []string{vip}, Ports: []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: new("http")}},
			},
		}
	}
	h.Set(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{
		Name: "buyer", Labels: map[string]string{names.LabelMesh: names.MeshEnabled},
	}})
	h.Set(waypoint("buyer"))
	h.Set(service("buyer", "x", "10.96.0.50"))
	h.Set(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: "buyer", Name: "x", Labels: map[string]string{discoveryv1.LabelServiceName: "x"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.168.77.7"}}},
	})
	h.Set(&gwv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: "buyer", Name: "out"},
		Spec: gwv1.HTTPRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Namespace: new(gwv1.Namespace("shop")), Name: "svc-0",
			}}},
			Rules: []gwv1.HTTPRouteRule{{BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{
				BackendObjectReference: gwv1.BackendObjectReference{Name: "x", Port: new(gwv1.PortNumber(80))},
			}}}}},
		},
	})
	web := s.service(0)
	web.Spec.Ports[0].AppProtocol = new("http")
	h.Set(web)
	buyer := cluster.Key{Namespace: "buyer", Name: "wp"}
	h.subscribe(catalogue.WaypointScope(shopWaypoint))
	h.subscribe(catalogue.WaypointScope(buyer))
	h.process()
	at := names.WaypointEndpoints("buyer", "x", 80)
	require.Empty(t, assigned(t, h, shopWaypoint, at))
	require.Equal(t, []string{"192.168.77.7"}, assigned(t, h, buyer, at))
}

// BenchmarkEndpointsOfGuarded: what an event costs where a waypoint serves all Services and all pods are guarded.
func BenchmarkEndpointsOfGuarded(b *testing.B) {
	s := guardedShop{pods: 1000, workloads: 100}
	h := newHarness(b)
	h.given(s.objects())
	h.subscribe(catalogue.WaypointScope(cluster.Key{Namespace: "shop", Name: "wp"}))
	nodes := catalogue.NodeScope("n1")
	for n := range s.pods {
		h.Interest(xds.Interest{
			Key: nodes.Key(xds.TypeExtension, names.PodAuthorization("shop", fmt.Sprint("pod-", n))), Wanted: true,
		})
	}
	h.process()
	require.Len(b, endpointsOf(b, h, 7), s.pods/s.workloads)
	run := func(what string, change func(n int)) {
		n := 0
		b.Run(what, func(b *testing.B) {
			for b.Loop() {
				n++
				change(n)
				h.process()
			}
		})
	}
	run("a pod is relabelled", func(n int) { h.Set(s.pod(7, 7+n%2)) })
	h.Set(s.pod(7, 7))
	run("a slice loses a pod and gets it back", func(n int) {
		slice := s.slice(7)
		slice.Endpoints = slice.Endpoints[n%2:]
		h.Set(slice)
	})
	run("a Service leads elsewhere", func(n int) {
		svc := s.service(7)
		svc.Spec.Ports[0].TargetPort = intstr.FromInt32(int32(8080 + n%2))
		h.Set(svc)
	})
	run("a policy is edited", func(n int) {
		p := s.policy(7)
		p.Generation, p.Spec.Rules[0].Sources = int64(n), p.Spec.Rules[0].Sources[:10+n%2]
		h.Set(p)
	})
}
