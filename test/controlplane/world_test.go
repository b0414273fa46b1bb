// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controlplane

import (
	"context"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"sync/atomic"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

const (
	shop     = "shop"
	node     = "n1"
	services = "10.96.0.0/14"
)

// world is an API server, two operators, and the proxies of one node and of the waypoint of one namespace.
type world struct {
	client.WithWatch
	t        testing.TB
	replicas []*replica
	node     *proxy
	// told is told of each resource that the waypoint gets.
	told atomic.Pointer[func(*discoveryv3.Resource)]
}

// tell has a function told of each resource of a type that the waypoint gets from now on, and no other one.
func (w *world) tell(typeURL string, told func(*discoveryv3.Resource)) {
	f := func(r *discoveryv3.Resource) {
		if r.GetResource().GetTypeUrl() == typeURL {
			told(r)
		}
	}
	w.told.Store(&f)
}

func newWorld(t testing.TB) *world {
	t.Helper()
	netnstest.NeedRoot(t)
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Experimental})
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		clientgoscheme.AddToScheme, v1alpha1.AddToScheme, gwv1.Install,
	} {
		require.NoError(t, add(scheme))
	}
	c, err := client.NewWithWatch(cfg, client.Options{Scheme: scheme})
	require.NoError(t, err)
	w := &world{WithWatch: c, t: t}
	w.cluster()
	a, b := netnstest.Linked(t, []string{"10.99.0.1/24"}, []string{"10.99.0.2/24"})
	at, _, err := rest.DefaultServerUrlFor(cfg)
	require.NoError(t, err)
	socket := passOn(t, at.Host)
	w.replicas = append(w.replicas, start(t, cfg, socket, "operator-1", a))
	eventually.NoError(t, "the first replica leads", func() error {
		return c.Get(t.Context(), client.ObjectKey{Name: names.WaypointClass}, &gwv1.GatewayClass{})
	})
	w.replicas = append(w.replicas, start(t, cfg, socket, "operator-2", b))
	agent := w.pod(names.SystemNamespace, "fairway-node-1", names.NodeServiceAccount, "10.200.0.1",
		map[string]string{"app.kubernetes.io/name": "fairway", names.LabelComponent: names.ComponentNode}, nil)
	w.node = w.connect(w.replicas[1], agent, func(*discoveryv3.Resource) {})
	w.waypoint()
	return w
}

// passOn has connections to a socket reach an address of this process's network.
func passOn(t testing.TB, address string) (socket string) {
	t.Helper()
	socket = filepath.Join(t.TempDir(), "api.sock")
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "unix", socket)
	require.NoError(t, err)
	netnstest.ServeOn(t, l, func(conn net.Conn) {
		to, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", address)
		if err != nil {
			t.Log(err)
			return
		}
		defer func() { _ = to.Close() }()
		go func() {
			_, _ = io.Copy(to, conn)
			_ = to.Close()
		}()
		_, _ = io.Copy(conn, to)
	})
	return socket
}

func (w *world) make(objects ...client.Object) {
	w.t.Helper()
	for _, o := range objects {
		require.NoError(w.t, w.Create(w.t.Context(), o))
	}
}

// cluster makes what is there before the mesh.
func (w *world) cluster() {
	enrolled := map[string]string{names.LabelMesh: names.MeshEnabled}
	w.make(
		&networkingv1.ServiceCIDR{
			ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{services}},
		},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: names.SystemNamespace}},
		&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: shop, Labels: enrolled}},
		&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: node}, Spec: corev1.NodeSpec{PodCIDRs: []string{"10.200.0.0/16"}},
		},
		&v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}, Spec: v1alpha1.MeshSpec{
			Network: &v1alpha1.Network{ServiceCIDRs: []v1alpha1.CIDR{services, "10.0.0.0/24"}},
		}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: "app"}},
		&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{
			Namespace: names.SystemNamespace, Name: names.NodeServiceAccount,
		}},
	)
	w.slice(names.SystemNamespace, names.OperatorService, "10.99.0.1", "10.99.0.2")
	for n, name := range []string{"v1", "v2", "moving"} {
		address := fmt.Sprintf("10.200.1.%d", n+1)
		w.pod(shop, name, "app", address, map[string]string{"app": name}, nil)
		w.service(name)
		w.slice(shop, name, address)
	}
	w.service("app")
}

// pod is one that runs on the node and is captured.
func (w *world) pod(
	namespace, name, account, address string, labels map[string]string, owner client.Object,
) *corev1.Pod {
	w.t.Helper()
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: namespace, Name: name, Labels: labels},
		Spec: corev1.PodSpec{
			NodeName: node, ServiceAccountName: account, Containers: []corev1.Container{{Name: "c", Image: "i"}},
		},
	}
	if owner != nil {
		require.NoError(w.t, controllerutil.SetControllerReference(owner, p, w.Scheme()))
	}
	w.make(p)
	p.Status = corev1.PodStatus{
		Phase: corev1.PodRunning, PodIP: address, PodIPs: []corev1.PodIP{{IP: address}},
		Conditions: []corev1.PodCondition{
			{Type: v1alpha1.PodConditionCaptured, Status: corev1.ConditionTrue},
			{Type: corev1.PodReady, Status: corev1.ConditionTrue},
		},
	}
	require.NoError(w.t, w.Status().Update(w.t.Context(), p))
	return p
}

func (w *world) service(name string) *corev1.Service {
	w.t.Helper()
	http := "http"
	s := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80, AppProtocol: &http}}},
	}
	w.make(s)
	return s
}

// slice lists the endpoints of a Service, as the cluster's controllers do, who aren't there.
func (w *world) slice(namespace, service string, addresses ...string) {
	w.t.Helper()
	http, port, ready := "http", int32(8080), true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: namespace, Name: service, Labels: map[string]string{discoveryv1.LabelServiceName: service},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &http, Port: &port}},
	}
	for n, address := range addresses {
		e := discoveryv1.Endpoint{
			Addresses: []string{address}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
		}
		if service == names.OperatorService {
			e.TargetRef = &corev1.ObjectReference{Kind: "Pod", Name: fmt.Sprint("operator-", n+1)}
		}
		s.Endpoints = append(s.Endpoints, e)
	}
	w.make(s)
}

// route leads what Service `of` is asked for under a path to another one.
func (w *world) route(name, of, path, to string) *gwv1.HTTPRoute {
	core, kind, port, prefix := gwv1.Group(""), gwv1.Kind("Service"), gwv1.PortNumber(80), gwv1.PathMatchPathPrefix
	return &gwv1.HTTPRoute{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: name},
		Spec: gwv1.HTTPRouteSpec{
			CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: []gwv1.ParentReference{
				{Group: &core, Kind: &kind, Name: gwv1.ObjectName(of)},
			}},
			Rules: []gwv1.HTTPRouteRule{{
				Matches: []gwv1.HTTPRouteMatch{{Path: &gwv1.HTTPPathMatch{Type: &prefix, Value: &path}}},
				BackendRefs: []gwv1.HTTPBackendRef{{BackendRef: gwv1.BackendRef{
					BackendObjectReference: gwv1.BackendObjectReference{Name: gwv1.ObjectName(to), Port: &port},
				}}},
			}},
		},
	}
}

// dialled has the node's proxy ask for a Service's address, as for a client that connects there.
func (w *world) dialled(s *corev1.Service) {
	w.node.want(xds.TypeCluster, net.JoinHostPort(s.Spec.ClusterIP, "80"))
}

// waypoint has the namespace's automatic one come about, with what kubelet and the cluster's controllers would make.
func (w *world) waypoint() {
	t := w.t
	w.make(w.route("first", "app", "/first", "v1"), w.route("moving", "moving", "/", "moving"))
	at := client.ObjectKey{Namespace: shop, Name: names.AutomaticWaypoint}
	d := &appsv1.Deployment{}
	eventually.NoError(t, "the waypoint is deployed", func() error { return w.Get(t.Context(), at, d) })
	rs := &appsv1.ReplicaSet{
		ObjectMeta: metav1.ObjectMeta{Namespace: shop, Name: d.Name + "-1", Labels: d.Spec.Template.Labels},
		Spec:       appsv1.ReplicaSetSpec{Selector: d.Spec.Selector, Template: d.Spec.Template},
	}
	require.NoError(t, controllerutil.SetControllerReference(d, rs, w.Scheme()))
	w.make(rs)
	p := w.pod(shop, d.Name+"-1-1", d.Spec.Template.Spec.ServiceAccountName, "10.200.2.1", d.Spec.Template.Labels, rs)
	eventually.NoError(t, "the waypoint's Service is there", func() error {
		return w.Get(t.Context(), at, &corev1.Service{})
	})
	w.slice(shop, names.AutomaticWaypoint, "10.200.2.1")
	require.NoError(t, w.Status().Patch(t.Context(), d, client.RawPatch(types.MergePatchType,
		[]byte(`{"status":{"replicas":1,"readyReplicas":1,"availableReplicas":1}}`))))
	wp := w.connect(w.replicas[1], p, func(r *discoveryv3.Resource) {
		if f := w.told.Load(); f != nil {
			(*f)(r)
		}
	})
	for _, all := range []string{xds.TypeListener, xds.TypeScopedRoute, xds.TypeCluster} {
		wp.want(all, "*")
	}
	wp.want(xds.TypeRuntime, names.RuntimeLayer)
	eventually.Passes(t, "the first route is Programmed", func(look require.TestingT) {
		require.True(look, w.programmed(look, "first"))
	})
}

// programmed tells whether a route says that its present generation is served.
func (w *world) programmed(look require.TestingT, name string) bool {
	r := &gwv1.HTTPRoute{}
	require.NoError(look, w.Get(w.t.Context(), client.ObjectKey{Namespace: shop, Name: name}, r))
	return served(r)
}

func served(r *gwv1.HTTPRoute) bool {
	for _, p := range r.Status.Parents {
		c := meta.FindStatusCondition(p.Conditions, v1alpha1.EntryConditionProgrammed)
		if c != nil && c.Status == metav1.ConditionTrue && c.ObservedGeneration == r.Generation {
			return true
		}
	}
	return false
}
