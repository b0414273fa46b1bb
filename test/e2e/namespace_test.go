// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

const toolImage = "fairway.dev/test/tool:v0.1.0"

// labelTest is on every namespace that a test makes, with the test's name.
const labelTest = "fairway.dev/e2e"

// space is a namespace of one test.
type space struct {
	t    *testing.T
	name string
}

// newSpace makes a namespace that goes when the test ends. Labels are pairs of key and value.
func newSpace(t *testing.T, labels ...string) *space {
	t.Helper()
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{GenerateName: "e2e-", Labels: pairs(labels)}}
	ns.Labels[labelTest] = strings.ToLower(t.Name()[:min(len(t.Name()), 60)])
	ns.Labels[labelTest] = strings.NewReplacer("/", ".", "_", ".").Replace(ns.Labels[labelTest])
	if err := world.client.Create(t.Context(), ns); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("namespace %s is kept, because the test failed", ns.Name)
			return
		}
		_ = world.client.Delete(context.Background(), ns)
	})
	s := &space{t: t, name: ns.Name}
	// A pod that comes before its namespace's service account is refused.
	eventually.NoError(t, "the namespace's service account", func() error {
		return world.client.Get(t.Context(), client.ObjectKey{Namespace: s.name, Name: "default"}, &corev1.ServiceAccount{})
	})
	return s
}

// enrolled is newSpace in the mesh.
func enrolled(t *testing.T, labels ...string) *space {
	t.Helper()
	return newSpace(t, append(labels, names.LabelMesh, names.MeshEnabled)...)
}

func pairs(in []string) map[string]string {
	out := map[string]string{}
	for i := 0; i+1 < len(in); i += 2 {
		out[in[i]] = in[i+1]
	}
	return out
}

func (s *space) create(o client.Object) {
	s.t.Helper()
	o.SetNamespace(s.name)
	if err := world.client.Create(s.t.Context(), o); err != nil {
		s.t.Fatalf("%T %s: %v", o, o.GetName(), err)
	}
}

// gateway makes a Gateway of a name that is a waypoint.
func (s *space) gateway(name string, change ...func(*gwv1.Gateway)) {
	s.t.Helper()
	g := &gwv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: gwv1.GatewaySpec{GatewayClassName: names.WaypointClass, Listeners: []gwv1.Listener{
			{Name: "mesh", Port: names.PortMTLS, Protocol: names.Domain + "/MTLS"},
		}},
	}
	for _, c := range change {
		c(g)
	}
	s.create(g)
}

// gatewayOfOne is a waypoint with one proxy.
func (s *space) gatewayOfOne(name string) {
	s.t.Helper()
	s.create(&v1alpha1.ProxyParameters{
		ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: v1alpha1.ProxyParametersSpec{Replicas: new(int32(1))},
	})
	s.gateway(name, parametersOf(name))
}

// parametersOf has a Gateway name ProxyParameters.
func parametersOf(name string) func(*gwv1.Gateway) {
	return func(g *gwv1.Gateway) {
		g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{ParametersRef: &gwv1.LocalParametersReference{
			Group: gwv1.Group(v1alpha1.GroupVersion.Group), Kind: "ProxyParameters", Name: name,
		}}
	}
}

// tcpServer is a Deployment that sends back what it gets, and a Service of its name, of TCP.
func (s *space) tcpServer(name string, change ...func(*corev1.Service)) *corev1.Service {
	s.t.Helper()
	s.server(name, func(d *deployment) {
		d.Spec.Template.Spec.Containers[0].Args = []string{"tcp-serve", "--name=" + name, "--port=8080"}
		d.Spec.Template.Spec.Containers[0].ReadinessProbe.ProbeHandler = tcpProbe("http")
	})
	return s.service(name, name, append(change, func(svc *corev1.Service) {
		svc.Spec.Ports[0].AppProtocol, svc.Spec.Ports[0].Name = nil, "tcp"
	})...)
}

// label sets labels of the namespace; an empty value removes one.
func (s *space) label(labels ...string) {
	s.t.Helper()
	relabel(s.t, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: s.name}}, labels...)
}

func relabel(t *testing.T, o client.Object, labels ...string) {
	t.Helper()
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	patch := client.MergeFrom(o.DeepCopyObject().(client.Object))
	now := o.GetLabels()
	if now == nil {
		now = map[string]string{}
	}
	for key, value := range pairs(labels) {
		if now[key] = value; value == "" {
			delete(now, key)
		}
	}
	o.SetLabels(now)
	require.NoError(t, world.client.Patch(t.Context(), o, patch))
}

// edit changes an object as it is now, whoever writes to it meanwhile: a status is written when others like it.
func edit(t *testing.T, o client.Object, change func()) {
	t.Helper()
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(o), o))
	patch := client.MergeFrom(o.DeepCopyObject().(client.Object))
	change()
	require.NoError(t, world.client.Patch(t.Context(), o, patch))
}

// option changes a Deployment before it is created.
type option func(*appsv1.Deployment)

// arguments replace those of the server.
func arguments(a ...string) option {
	return func(d *appsv1.Deployment) { d.Spec.Template.Spec.Containers[0].Args = a }
}

func podLabel(key, value string) option {
	return func(d *appsv1.Deployment) { d.Spec.Template.Labels[key] = value }
}

func onHostNetwork(port int) option {
	return func(d *appsv1.Deployment) {
		d.Spec.Template.Spec.HostNetwork = true
		d.Spec.Template.Spec.DNSPolicy = corev1.DNSClusterFirstWithHostNet
		c := &d.Spec.Template.Spec.Containers[0]
		c.Args = []string{"serve", "--name=" + d.Name, fmt.Sprintf("--port=%d", port)}
		c.Ports[0].ContainerPort = int32(port)
	}
}

// listeningOn makes the container's port "http" another one.
func listeningOn(port int) option {
	return func(d *appsv1.Deployment) {
		c := &d.Spec.Template.Spec.Containers[0]
		c.Args = []string{"serve", "--name=" + d.Name, fmt.Sprintf("--port=%d", port)}
		c.Ports[0].ContainerPort = int32(port)
	}
}

// apartFrom keeps the pods off the nodes that have pods of another app.
func apartFrom(app string) option {
	return spec(func(p *corev1.PodSpec) {
		p.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: []corev1.PodAffinityTerm{{
				TopologyKey: corev1.LabelHostname, LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"app": app}},
			}},
		}}
	})
}

func spec(change func(*corev1.PodSpec)) option {
	return func(d *appsv1.Deployment) { change(&d.Spec.Template.Spec) }
}

// server runs the test server (port 8080, named http) under a service account of its own name, and waits for it.
func (s *space) server(name string, opts ...option) *appsv1.Deployment {
	s.t.Helper()
	s.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}})
	labels := map[string]string{"app": name}
	grace := int64(8)
	d := &appsv1.Deployment{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: appsv1.DeploymentSpec{
			Selector: &metav1.LabelSelector{MatchLabels: labels},
			Template: corev1.PodTemplateSpec{
				ObjectMeta: metav1.ObjectMeta{Labels: map[string]string{"app": name}},
				Spec: corev1.PodSpec{
					ServiceAccountName:            name,
					TerminationGracePeriodSeconds: &grace,
					Containers: []corev1.Container{{
						Name: "tool", Image: toolImage, ImagePullPolicy: corev1.PullIfNotPresent,
						Args:  []string{"serve", "--name=" + name},
						Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
						ReadinessProbe: &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{
							HTTPGet: &corev1.HTTPGetAction{Path: "/healthz", Port: intstr.FromString("http")},
						}},
						// Endpoints must have left the proxies before the server stops to listen.
						Lifecycle: &corev1.Lifecycle{PreStop: &corev1.LifecycleHandler{Sleep: &corev1.SleepAction{Seconds: 4}}},
					}},
				},
			},
		},
	}
	for _, o := range opts {
		o(d)
	}
	s.create(d)
	s.ready(name)
	return d
}

// client runs a pod to ask from, which is a server as well.
func (s *space) client(name string, opts ...option) { s.t.Helper(); s.server(name, opts...) }

// ready waits until a Deployment is complete.
func (s *space) ready(name string) {
	s.t.Helper()
	s.readyWithin(time.Minute, name)
}

func (s *space) readyWithin(d time.Duration, name string) {
	s.t.Helper()
	eventually.PassesWithin(s.t, d, fmt.Sprintf("Deployment %s is complete", name), func(look require.TestingT) {
		var d appsv1.Deployment
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKey{Namespace: s.name, Name: name}, &d))
		want := int32(1)
		if d.Spec.Replicas != nil {
			want = *d.Spec.Replicas
		}
		require.Equal(look, d.Generation, d.Status.ObservedGeneration)
		require.Equal(look, want, d.Status.UpdatedReplicas)
		require.Equal(look, want, d.Status.AvailableReplicas, "available replicas of "+name)
		require.Equal(look, want, d.Status.Replicas, "replicas of "+name)
	})
}

// scale a Deployment and wait.
func (s *space) scale(name string, n int32) {
	s.t.Helper()
	s.scaleWithin(time.Minute, name, n)
}

func (s *space) scaleWithin(within time.Duration, name string, n int32) {
	s.t.Helper()
	patch := client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"spec":{"replicas":%d}}`, n))
	d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: s.name, Name: name}}
	require.NoError(s.t, world.client.Patch(s.t.Context(), d, patch))
	s.readyWithin(within, name)
}

// service makes port 80 of a Service lead to the port named http of the pods with a label app.
func (s *space) service(name, app string, change ...func(*corev1.Service)) *corev1.Service {
	s.t.Helper()
	http := "http"
	svc := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.ServiceSpec{
			Selector: map[string]string{"app": app},
			Ports:    []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromString("http"), AppProtocol: &http}},
		},
	}
	for _, c := range change {
		c(svc)
	}
	s.create(svc)
	return svc
}

// through has who asks for a Service go through a waypoint, or through none.
func through(waypoint string) func(*corev1.Service) {
	return func(svc *corev1.Service) { svc.Labels = map[string]string{names.LabelUseWaypoint: waypoint} }
}

// pods of a Deployment that run and are not on their way out.
func (s *space) pods(app string) []corev1.Pod {
	s.t.Helper()
	var list corev1.PodList
	require.NoError(s.t,
		world.client.List(s.t.Context(), &list, client.InNamespace(s.name), client.MatchingLabels{"app": app}))
	var out []corev1.Pod
	for _, p := range list.Items {
		if p.DeletionTimestamp == nil && p.Status.Phase == corev1.PodRunning {
			out = append(out, p)
		}
	}
	return out
}

func (s *space) pod(app string) corev1.Pod {
	s.t.Helper()
	all := s.pods(app)
	if len(all) == 0 {
		s.t.Fatalf("no pod of %s runs in %s", app, s.name)
	}
	return all[0]
}

// captured waits until the pods of a Deployment are in the mesh.
func (s *space) captured(apps ...string) {
	s.t.Helper()
	s.captureIs(corev1.ConditionTrue, apps...)
}

func (s *space) captureIs(want corev1.ConditionStatus, apps ...string) {
	s.t.Helper()
	for _, app := range apps {
		eventually.Passes(s.t, fmt.Sprintf("condition Captured of %s is %s", app, want), func(look require.TestingT) {
			pods := s.pods(app)
			require.NotEmpty(look, pods)
			for i := range pods {
				status, text := captureOf(&pods[i])
				require.Equal(look, want, status, "%s: %s", pods[i].Name, text)
			}
		})
	}
}

// captureOf is False for a pod that no agent ever spoke of.
func captureOf(p *corev1.Pod) (corev1.ConditionStatus, string) {
	for _, c := range p.Status.Conditions {
		if c.Type == v1alpha1.PodConditionCaptured {
			return c.Status, c.Reason + ": " + c.Message
		}
	}
	return corev1.ConditionFalse, "no condition"
}

// host is the name of a Service that resolves in every namespace.
func (s *space) host(service string) string { return service + "." + s.name + ".svc" }

func identityOf(s *space, account string) string {
	return names.SPIFFEID(names.DefaultTrustDomain, s.name, account)
}

// since is a moment by the clock of this machine, with room for that of a node.
func since() time.Time { return time.Now().Add(-time.Second) }

// deployment is short for options that change one.
type deployment = appsv1.Deployment

func tcpProbe(port string) corev1.ProbeHandler {
	return corev1.ProbeHandler{TCPSocket: &corev1.TCPSocketAction{Port: intstr.FromString(port)}}
}

// group selects pods by the label of that name.
func group(name string) func(*corev1.Service) {
	return func(s *corev1.Service) { s.Spec.Selector = map[string]string{"group": name} }
}
