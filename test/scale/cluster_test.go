// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"context"
	"fmt"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/apimachinery/pkg/util/uuid"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// writers is how many write to the API server at a time.
const writers = 24

// world is the cluster in the API server, as controllers, kubelets and agents fill it.
type world struct {
	client.WithWatch
	t     testing.TB
	store *store
	size
	// services by their number, agents by node.
	services []*corev1.Service
	agents   []*corev1.Pod
}

// each does something for each of n, several at a time.
func (w *world) each(n int, do func(ctx context.Context, n int) error) {
	w.t.Helper()
	g, ctx := errgroup.WithContext(w.t.Context())
	g.SetLimit(writers)
	for i := range n {
		g.Go(func() error { return do(ctx, i) })
	}
	require.NoError(w.t, g.Wait())
}

func (w *world) fill() {
	w.t.Helper()
	require.NoError(w.t, w.Create(w.t.Context(), namespace(names.SystemNamespace, names.MeshDisabled)))
	w.each(w.Waypoints, func(ctx context.Context, n int) error {
		return w.Create(ctx, namespace(namespaceOf(n), names.MeshEnabled))
	})
	require.NoError(w.t, w.Create(w.t.Context(), &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
		Namespace: names.SystemNamespace, Name: names.NodeServiceAccount,
	}}))
	w.agents = make([]*corev1.Pod, w.Nodes)
	w.each(w.Nodes, w.node)
	w.services = make([]*corev1.Service, w.Services)
	w.each(w.Services, w.service)
	w.bulk()
	w.each(w.Routes, func(ctx context.Context, n int) error { return w.Create(ctx, w.route(n)) })
}

// bulk makes what there is most of: one pod and one EndpointSlice by the API server, and others like these.
func (w *world) bulk() {
	w.t.Helper()
	pod, slice := w.pod(0, ""), w.endpoints(0)
	require.NoError(w.t, w.run(w.t.Context(), pod, podAddress(w.Nodes, 0)))
	require.NoError(w.t, w.Create(w.t.Context(), slice))
	w.put(w.Pods, "pods", func(n int) client.Object {
		p := pod.DeepCopy()
		p.ObjectMeta = like(w.pod(n, "").ObjectMeta, pod.ObjectMeta)
		p.Spec.NodeName, p.Spec.ServiceAccountName = nodeName(n%w.Nodes), w.pod(n, "").Spec.ServiceAccountName
		p.Status.PodIP = podAddress(w.Nodes, n).String()
		p.Status.PodIPs = []corev1.PodIP{{IP: p.Status.PodIP}}
		return p
	})
	w.put(w.Services, "endpointslices", func(n int) client.Object {
		s := w.endpoints(n)
		s.ObjectMeta = like(s.ObjectMeta, slice.ObjectMeta)
		return s
	})
}

// put makes all objects of a resource but the first.
func (w *world) put(n int, resource string, object func(n int) client.Object) {
	w.t.Helper()
	w.each((n-1+inTransaction-1)/inTransaction, func(ctx context.Context, batch int) error {
		var objects []client.Object
		for i := 1 + batch*inTransaction; i < min(n, 1+(batch+1)*inTransaction); i++ {
			objects = append(objects, object(i))
		}
		return w.store.put(ctx, resource, objects)
	})
}

// like adds what the API server adds.
func like(m, other metav1.ObjectMeta) metav1.ObjectMeta {
	m.UID, m.Generation = uuid.NewUUID(), other.Generation
	m.CreationTimestamp, m.ManagedFields = other.CreationTimestamp, other.ManagedFields
	return m
}

func namespace(name, mesh string) *corev1.Namespace {
	return &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{names.LabelMesh: mesh}}}
}

func namespaceOf(n int) string { return fmt.Sprint("team-", n) }

func nodeName(n int) string { return fmt.Sprint("node-", n) }

// The addresses of a node's pods are in its range: first those of the cluster's pods, then those of waypoints.
func nodeRange(n int) netip.Prefix {
	return netip.PrefixFrom(netip.AddrFrom4([4]byte{10, byte(128 + n/256), byte(n), 0}), 24)
}

func podAddress(nodes, n int) netip.Addr {
	a := nodeRange(n % nodes).Addr().As4()
	a[3] = byte(2 + n/nodes)
	return netip.AddrFrom4(a)
}

func (w *world) node(ctx context.Context, n int) error {
	address := netip.AddrFrom4([4]byte{172, 16, byte(n / 256), byte(n)}).String()
	node := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(n), Labels: map[string]string{
			corev1.LabelOSStable: "linux", corev1.LabelHostname: nodeName(n),
			corev1.LabelTopologyZone: fmt.Sprint("zone-", n%3),
		}},
		Spec: corev1.NodeSpec{PodCIDR: nodeRange(n).String(), PodCIDRs: []string{nodeRange(n).String()}},
	}
	if err := w.Create(ctx, node); err != nil {
		return err
	}
	node.Status = corev1.NodeStatus{
		Addresses:  []corev1.NodeAddress{{Type: corev1.NodeInternalIP, Address: address}},
		Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
	}
	for i := range 50 { // as many as kubelet lists
		node.Status.Images = append(node.Status.Images, corev1.ContainerImage{SizeBytes: 1 << 26, Names: []string{
			fmt.Sprintf("registry.example/team/application-%d@sha256:%064d", i, i),
			fmt.Sprintf("registry.example/team/application-%d:v1.2.%d", i, i),
		}})
	}
	if err := w.Status().Update(ctx, node); err != nil {
		return err
	}
	agent := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: names.SystemNamespace, Name: fmt.Sprint("fairway-node-", n), Labels: deploy.NodeLabels(),
		},
		Spec: corev1.PodSpec{
			NodeName: node.Name, HostNetwork: true, ServiceAccountName: names.NodeServiceAccount,
			Containers: []corev1.Container{{Name: "agent", Image: "agent"}},
		},
	}
	w.agents[n] = agent
	return w.run(ctx, agent, netip.MustParseAddr(address))
}

func (w *world) service(ctx context.Context, n int) error {
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(n % w.Waypoints), Name: fmt.Sprint("service-", n),
			Labels: map[string]string{"app.kubernetes.io/name": fmt.Sprint("service-", n)},
		},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app.kubernetes.io/name": fmt.Sprint("service-", n)},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http")}},
		},
	}
	w.services[n] = s
	return w.Create(ctx, s)
}

// pod is one of a Service's, with about as much in it as pods have.
func (w *world) pod(n int, suffix string) *corev1.Pod {
	of := n % w.Services
	app := fmt.Sprint("service-", of)
	probe := &corev1.Probe{ProbeHandler: corev1.ProbeHandler{
		HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")},
	}}
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespaceOf(of % w.Waypoints), Name: fmt.Sprint(app, "-7d4b9c6f5d-", n, suffix),
			Labels: map[string]string{
				"app.kubernetes.io/name": app, "app.kubernetes.io/part-of": "shop", "pod-template-hash": "7d4b9c6f5d",
			},
			Annotations: map[string]string{"prometheus.io/scrape": "true", "checksum/config": fmt.Sprintf("%064d", of)},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: app + "-7d4b9c6f5d", UID: types.UID(fmt.Sprint(of)),
				Controller: new(true), BlockOwnerDeletion: new(true),
			}},
		},
		Spec: corev1.PodSpec{
			NodeName: nodeName(n % w.Nodes), ServiceAccountName: app,
			Containers: []corev1.Container{{
				Name: "application", Image: "registry.example/team/application:v1.2.3",
				Ports:         []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				LivenessProbe: probe, ReadinessProbe: probe,
				Resources: corev1.ResourceRequirements{Requests: corev1.ResourceList{
					corev1.ResourceCPU: resource.MustParse("100m"), corev1.ResourceMemory: resource.MustParse("128Mi"),
				}},
			}},
		},
	}
	for i := range 10 {
		p.Spec.Containers[0].Env = append(p.Spec.Containers[0].Env,
			corev1.EnvVar{Name: fmt.Sprint("SETTING_", i), Value: fmt.Sprintf("value %d of %s", i, app)})
	}
	return p
}

// run creates a pod and says of it what kubelet and agent say.
func (w *world) run(ctx context.Context, p *corev1.Pod, address netip.Addr) error {
	if err := w.Create(ctx, p); err != nil {
		return err
	}
	now := metav1.Now()
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address.String(), PodIPs: []corev1.PodIP{{IP: address.String()}}, StartTime: &now,
		Conditions: []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.PodInitialized, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.ContainersReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue, LastTransitionTime: now},
		},
		ContainerStatuses: []corev1.ContainerStatus{{
			Name: p.Spec.Containers[0].Name, Ready: true, Image: p.Spec.Containers[0].Image, Started: new(true),
			ImageID: fmt.Sprintf("registry.example/team/application@sha256:%064d", 0),
			State:   corev1.ContainerState{Running: &corev1.ContainerStateRunning{StartedAt: now}},
		}},
	}
	if !p.Spec.HostNetwork && p.Labels[names.LabelComponent] == "" {
		p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
			Type: v1alpha1.PodConditionCaptured, Status: corev1.ConditionTrue, Reason: "Captured",
			Message: "plaintext is accepted too (permissive).", LastTransitionTime: now,
		})
	}
	return w.Status().Update(ctx, p)
}

// endpoints of a Service, as its pods are numbered.
func (w *world) endpoints(of int) *discoveryv1.EndpointSlice {
	s := w.services[of]
	out := endpointSlice(s.Namespace, s.Name, 8080, "http")
	for n := of; n < w.Pods; n += w.Services {
		out.Endpoints = append(out.Endpoints, w.endpoint(podAddress(w.Nodes, n), n%w.Nodes, w.pod(n, "")))
	}
	return out
}

func endpointSlice(namespace, service string, port int32, name string) *discoveryv1.EndpointSlice {
	return &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: service + "-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "endpointslice-controller.k8s.io",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new(name), Port: new(port), Protocol: new(corev1.ProtocolTCP)}},
	}
}

func (w *world) endpoint(address netip.Addr, node int, p *corev1.Pod) discoveryv1.Endpoint {
	return discoveryv1.Endpoint{
		Addresses: []string{address.String()}, NodeName: new(nodeName(node)), Zone: new(fmt.Sprint("zone-", node%3)),
		Conditions: discoveryv1.EndpointConditions{Ready: new(true), Serving: new(true), Terminating: new(false)},
		TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
	}
}

// route is that of the Service of its number.
func (w *world) route(n int) *gwv1.HTTPRoute {
	s := w.services[n]
	return routeOf(s.Name, s, "/shop", s)
}

// routeOf leads what a Service is asked for under a path to another one of its namespace.
func routeOf(name string, s *corev1.Service, path string, to *corev1.Service) *gwv1.HTTPRoute {
	return &gwv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: s.Namespace, Name: name},
		Spec: gwv1.HTTPRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: gwv1.ObjectName(s.Name),
			}}},
			Rules: []gwv1.HTTPRouteRule{{
				Matches: []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Value: new(path)}}},
				BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{
					BackendObjectReference: gwv1.BackendObjectReference{
						Name: gwv1.ObjectName(to.Name), Port: new(gwv1.PortNumber(80)),
					},
				}}},
			}},
		},
	}
}
