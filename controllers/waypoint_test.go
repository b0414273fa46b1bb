// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	autoscalingv1 "k8s.io/api/autoscaling/v1"
	autoscalingv2 "k8s.io/api/autoscaling/v2"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	policyv1 "k8s.io/api/policy/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/controller/controllerutil"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

func waypoint(ns, name string) *gwv1.Gateway {
	return &gwv1.Gateway{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name},
		Spec: gwv1.GatewaySpec{
			GatewayClassName: names.WaypointClass,
			Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: names.Domain + "/MTLS"}},
		},
	}
}

func programmedIs(status metav1.ConditionStatus, reason string) func(*gwv1.Gateway) error {
	return func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, "Programmed", status, reason)
	}
}

func exists[T client.Object](T) error { return nil }

// TestWaypoint follows a waypoint from its Gateway to Programmed, through rejection, drift and new parameters.
func TestWaypoint(t *testing.T) {
	o := start(t, shared.Config(t))
	ns := o.namespace("shop-")
	name := types.NamespacedName{Namespace: ns, Name: "waypoint"}
	o.create(waypoint(ns, "waypoint"))
	o.mesh()

	// Everything is there, owned by the Gateway; nothing is programmed before a proxy is ready and has acknowledged.
	g := get(o, "no proxy is ready", ns, "waypoint", programmedIs(metav1.ConditionFalse, "Pending"))
	require.NoError(t, condition(g.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted"))
	require.Len(t, g.Status.Addresses, 2)
	require.Equal(t, "waypoint."+ns+".svc.cluster.local", g.Status.Addresses[1].Value)
	require.Len(t, g.Status.Listeners, 1)
	require.NoError(t, condition(g.Status.Listeners[0].Conditions, "Accepted", metav1.ConditionTrue, "Accepted"))
	require.NoError(t, condition(g.Status.Listeners[0].Conditions, "Programmed", metav1.ConditionFalse, "Pending"))
	for _, obj := range []client.Object{
		get(o, "service", ns, "waypoint", exists[*corev1.Service]),
		get(o, "service account", ns, "waypoint", exists[*corev1.ServiceAccount]),
		get(o, "deployment", ns, "waypoint", exists[*appsv1.Deployment]),
		get(o, "budget", ns, "waypoint", exists[*policyv1.PodDisruptionBudget]),
		get(o, "autoscaler", ns, "waypoint", exists[*autoscalingv2.HorizontalPodAutoscaler]),
		get(o, "trust bundle", ns, "waypoint-"+names.TrustBundleConfigMap, exists[*corev1.ConfigMap]),
	} {
		require.True(t, metav1.IsControlledBy(obj, g), "%T", obj)
	}

	// What keeps its pods is said.
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint-x", Labels: map[string]string{
			names.LabelGatewayName: "waypoint", names.LabelComponent: names.ComponentWaypoint,
		}},
		Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "envoy", Image: "x"}}},
	}
	o.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "default"}}, pod)
	says := func(want string) {
		t.Helper()
		get(o, want, ns, "waypoint", func(g *gwv1.Gateway) error {
			if m := messageOf(g.Status.Conditions, "Programmed"); m != want {
				return errors.New(m)
			}
			return nil
		})
	}
	changeStatus(o, ns, pod.Name, func(p *corev1.Pod) {
		p.Status.Conditions = []corev1.PodCondition{
			{
				Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: "Unschedulable",
				Message: "0/2 nodes are available",
			},
		}
	})
	says("No proxy is ready: Unschedulable: 0/2 nodes are available.")
	changeStatus(o, ns, pod.Name, func(p *corev1.Pod) {
		p.Status.Conditions = nil
		p.Status.ContainerStatuses = []corev1.ContainerStatus{
			{Name: "envoy", Image: "envoy:none", State: corev1.ContainerState{
				Waiting: &corev1.ContainerStateWaiting{Reason: "ErrImagePull"},
			}},
		}
	})
	says("No proxy is ready: envoy: ImagePullBackOff envoy:none.")

	// Programmed when all ready proxies have acknowledged; Established once they can be reached, and from then on.
	changeStatus(o, ns, "waypoint", func(d *appsv1.Deployment) { d.Status.Replicas, d.Status.ReadyReplicas = 2, 2 })
	o.tell(func() { o.programmed[name] = programmed{acked: 1} }, o.programmedChanged, name)
	g = get(o, "one has not acknowledged", ns, "waypoint", programmedIs(metav1.ConditionFalse, "ProxiesPending"))
	require.NoError(t, progress(g.Status.Conditions, v1alpha1.ConditionReconciling))
	o.tell(func() { o.programmed[name] = programmed{acked: 2} }, o.programmedChanged, name)
	g = get(o, "programmed", ns, "waypoint", programmedIs(metav1.ConditionTrue, "Programmed"))
	require.Equal(t, "2/2 proxies serve.", messageOf(g.Status.Conditions, "Programmed"))
	require.NoError(t, progress(g.Status.Conditions, ""))
	o.event("Gateway", "Programmed", "2/2 proxies serve.")
	require.Nil(t, meta.FindStatusCondition(g.Status.Conditions, v1alpha1.GatewayConditionEstablished),
		"its Service has no endpoint")
	require.NoError(t, o.Create(t.Context(), &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint-1", Labels: map[string]string{
			discoveryv1.LabelServiceName: "waypoint", names.LabelGatewayName: "waypoint",
		}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"10.244.0.7"}}},
	}))
	g = get(o, "established", ns, "waypoint", func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, v1alpha1.GatewayConditionEstablished, metav1.ConditionTrue, "Served")
	})
	require.NoError(t, condition(g.Status.Listeners[0].Conditions, "Programmed", metav1.ConditionTrue, "Programmed"))
	o.tell(func() { o.programmed[name] = programmed{acked: 1, rejected: "bad regex"} }, o.programmedChanged, name)
	g = get(o, "rejected", ns, "waypoint", programmedIs(metav1.ConditionFalse, "ProxyRejected"))
	require.Contains(t, messageOf(g.Status.Conditions, "Programmed"), "bad regex")
	require.NoError(t, condition(g.Status.Conditions, v1alpha1.GatewayConditionEstablished, metav1.ConditionTrue,
		"Served"))

	// Drift is repaired; what others own is left alone, the autoscaler's number of replicas for one.
	change(o, ns, "waypoint", func(d *appsv1.Deployment) {
		d.Spec.Replicas = new(int32(5))
		d.Spec.Template.Spec.Containers[0].Args = []string{"evil"}
		d.Spec.Template.Annotations["theirs"] = "stays"
	})
	get(o, "drift is repaired", ns, "waypoint", func(d *appsv1.Deployment) error {
		if d.Spec.Template.Spec.Containers[0].Args[0] == "evil" {
			return errors.New("it is not")
		}
		require.EqualValues(t, 5, *d.Spec.Replicas)
		require.Equal(t, "stays", d.Spec.Template.Annotations["theirs"])
		return nil
	})
	require.NoError(t, o.Delete(context.Background(),
		&corev1.Service{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint"}}))
	get(o, "the Service comes back", ns, "waypoint", exists[*corev1.Service])

	// A new root reaches the pods.
	change(o, o.system, names.TrustBundleConfigMap,
		func(c *corev1.ConfigMap) { c.Data[names.TrustBundleKey] = "BUNDLE 2" })
	get(o, "the bundle is copied", ns, "waypoint-"+names.TrustBundleConfigMap, func(c *corev1.ConfigMap) error {
		if c.Data[names.TrustBundleKey] != "BUNDLE 2" {
			return errors.New(c.Data[names.TrustBundleKey])
		}
		return nil
	})

	// Parameters: missing ones are told, fixed replicas take the autoscaler's place.
	change(o, ns, "waypoint", func(g *gwv1.Gateway) {
		g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{
			Labels:        map[gwv1.LabelKey]gwv1.LabelValue{"team": "shop"},
			ParametersRef: &gwv1.LocalParametersReference{Group: "fairway.dev", Kind: "ProxyParameters", Name: "large"},
		}
	})
	get(o, "parameters are missing", ns, "waypoint", func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, "Accepted", metav1.ConditionFalse, "InvalidParameters")
	})
	o.create(&v1alpha1.ProxyParameters{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "large"},
		Spec:       v1alpha1.ProxyParametersSpec{Replicas: new(int32(3))},
	})
	get(o, "they are used", ns, "waypoint", func(d *appsv1.Deployment) error {
		if *d.Spec.Replicas != 3 || d.Labels["team"] != "shop" || d.Spec.Template.Labels["team"] != "shop" {
			return fmt.Errorf("%d replicas, labels %v", *d.Spec.Replicas, d.Labels)
		}
		return nil
	})
	eventually.NoError(o.t, "the autoscaler goes", func() error {
		hpa := &autoscalingv2.HorizontalPodAutoscaler{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint"}}
		if err := o.gone(hpa); err != nil && hpa.DeletionTimestamp == nil {
			return err
		}
		return nil
	})

	// Without a Mesh there is no waypoint, and its Gateway says so.
	finishDaemonSet(o)
	get(o, "the Gateway tells", ns, "waypoint", programmedIs(metav1.ConditionFalse, "NoMesh"))
	eventually.NoError(o.t, "the Deployment goes", func() error {
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint"}}
		if err := o.gone(d); err != nil && d.DeletionTimestamp == nil {
			return err
		}
		return nil
	})
}

// TestWaypointRefusals: what can't be a waypoint is told, and nothing of others is overwritten.
func TestWaypointRefusals(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	ns := o.namespace("refused-")

	theirs := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "taken"}}
	protocol, port, addresses := waypoint(ns, "protocol"), waypoint(ns, "port"), waypoint(ns, "addresses")
	protocol.Spec.Listeners[0].Protocol = "HTTP"
	port.Spec.Listeners[0].Port = 80
	addresses.Spec.Addresses = []gwv1.GatewaySpecAddress{{Value: "10.0.0.1"}}
	other := waypoint(ns, "other")
	other.Spec.GatewayClassName = "somebody-elses"
	o.create(theirs, waypoint(ns, "taken"), protocol, port, addresses, other)
	// Another controller gives its Gateways Services of their names, too.
	foreign := &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: other.Name},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
	}
	require.NoError(t, controllerutil.SetControllerReference(other, foreign, o.Scheme()))
	o.create(foreign)

	get(o, "a name is taken", ns, "taken", func(g *gwv1.Gateway) error {
		if c := meta.FindStatusCondition(g.Status.Conditions, "Programmed"); c != nil && c.Reason != "Pending" {
			require.Contains(t, c.Message, "ServiceAccount "+ns+"/taken has another owner")
		}
		return condition(g.Status.Conditions, "Programmed", metav1.ConditionFalse, "NoResources")
	})
	require.NoError(t, o.Get(context.Background(), client.ObjectKeyFromObject(theirs), theirs))
	require.Empty(t, theirs.OwnerReferences)
	require.Empty(t, theirs.Labels)

	// How the name became free can't be watched; it is tried again.
	require.NoError(t, o.Delete(context.Background(), theirs))
	get(o, "the name is free", ns, "taken", exists[*appsv1.Deployment])

	for name, reason := range map[string]string{
		"protocol": "ListenersNotValid", "port": "ListenersNotValid",
		"addresses": "UnsupportedAddress",
	} {
		get(o, name, ns, name, func(g *gwv1.Gateway) error {
			return errors.Join(condition(g.Status.Conditions, "Accepted", metav1.ConditionFalse, reason),
				condition(g.Status.Conditions, "Programmed", metav1.ConditionFalse, "Invalid"))
		})
	}
	g := get(o, "listener", ns, "protocol", exists[*gwv1.Gateway])
	require.NoError(t, condition(g.Status.Listeners[0].Conditions, "Accepted", metav1.ConditionFalse,
		"UnsupportedProtocol"))
	for _, name := range []string{"protocol", "port", "addresses"} {
		require.NoError(t, o.gone(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: name}}),
			"what is not accepted is not deployed")
	}
	// A mistake in one that runs leaves it running.
	change(o, ns, "taken", func(g *gwv1.Gateway) { g.Spec.Listeners[0].Port = 80 })
	get(o, "the mistake is told", ns, "taken", func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, "Accepted", metav1.ConditionFalse, "ListenersNotValid")
	})
	d := get(o, "it runs on", ns, "taken", exists[*appsv1.Deployment])
	require.Nil(t, d.DeletionTimestamp)

	g = get(o, "of another class", ns, "other", exists[*gwv1.Gateway])
	require.NoError(t, condition(g.Status.Conditions, "Accepted", metav1.ConditionUnknown, "Pending"))
	finishDaemonSet(o)
	// The Gateway of another class was reconciled before and after: its Service is not the operator's to remove.
	require.NoError(t, o.Get(context.Background(), client.ObjectKeyFromObject(foreign), foreign))
	require.Nil(t, foreign.DeletionTimestamp)
}

// TestWaypointOutsideTheMesh: a Gateway takes no namespace into the mesh. Nothing is deployed where it could get no
// identity.
func TestWaypointOutsideTheMesh(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	ns := o.namespace("outside-")
	enrol := func(value string) {
		t.Helper()
		change(o, "", ns, func(n *corev1.Namespace) { n.Labels[names.LabelMesh] = value })
	}
	enrol(names.MeshDisabled)
	o.create(waypoint(ns, "waypoint"))
	g := get(o, "not enrolled", ns, "waypoint", programmedIs(metav1.ConditionFalse, "NotEnrolled"))
	require.Contains(t, messageOf(g.Status.Conditions, "Programmed"), "label it fairway.dev/mesh=enabled")
	require.NoError(t, o.gone(&appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint"}}))
	enrol(names.MeshEnabled)
	get(o, "enrolled", ns, "waypoint", programmedIs(metav1.ConditionFalse, "Pending"))
	get(o, "it is deployed", ns, "waypoint", exists[*appsv1.Deployment])
	enrol(names.MeshDisabled)
	get(o, "no longer enrolled", ns, "waypoint", programmedIs(metav1.ConditionFalse, "NotEnrolled"))
	require.Nil(t, get(o, "it runs on", ns, "waypoint", exists[*appsv1.Deployment]).DeletionTimestamp)
	finishDaemonSet(o)
}

// TestWaypointReplicas: an autoscaled waypoint starts with the least number, and one that had a fixed number keeps it
// until the autoscaler decides.
func TestWaypointReplicas(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	ns := o.namespace("replicas-")
	g := waypoint(ns, "waypoint")
	g.Spec.Infrastructure = &gwv1.GatewayInfrastructure{
		ParametersRef: &gwv1.LocalParametersReference{Group: "fairway.dev", Kind: "ProxyParameters", Name: "p"},
	}
	o.create(&v1alpha1.ProxyParameters{
		ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "p"},
		Spec:       v1alpha1.ProxyParametersSpec{Autoscaling: &v1alpha1.Autoscaling{MinReplicas: 2}},
	}, g)
	replicas := func(what string, want int32, label string) {
		t.Helper()
		get(o, what, ns, "waypoint", func(d *appsv1.Deployment) error {
			if *d.Spec.Replicas != want || d.Spec.Template.Labels["round"] != label {
				return fmt.Errorf("%d replicas, labels %v", *d.Spec.Replicas, d.Spec.Template.Labels)
			}
			return nil
		})
	}
	set := func(round string, edit func(*v1alpha1.ProxyParametersSpec)) {
		t.Helper()
		change(o, ns, "p", func(p *v1alpha1.ProxyParameters) {
			p.Spec.PodLabels = map[string]string{"round": round}
			edit(&p.Spec)
		})
	}
	scale := func(n int32) {
		t.Helper()
		d := &appsv1.Deployment{ObjectMeta: metav1.ObjectMeta{Namespace: ns, Name: "waypoint"}}
		require.NoError(t, o.SubResource("scale").Update(context.Background(), d,
			client.WithSubResourceBody(&autoscalingv1.Scale{Spec: autoscalingv1.ScaleSpec{Replicas: n}})))
	}
	replicas("it starts with the least number", 2, "")
	scale(5)
	set("a", func(*v1alpha1.ProxyParametersSpec) {})
	replicas("the autoscaler's number stays", 5, "a")
	set("b", func(s *v1alpha1.ProxyParametersSpec) { s.Autoscaling, s.Replicas = nil, new(int32(4)) })
	replicas("a fixed number", 4, "b")
	set("c", func(s *v1alpha1.ProxyParametersSpec) {
		s.Autoscaling, s.Replicas = &v1alpha1.Autoscaling{MinReplicas: 2}, nil
	})
	replicas("it is kept", 4, "c")
	scale(3)
	set("d", func(*v1alpha1.ProxyParametersSpec) {})
	replicas("the autoscaler has it again", 3, "d")
	finishDaemonSet(o)
}

// TestWaypointOutlivesANode: where nothing says how many proxies there are, there are two as soon as two nodes may run
// them.
func TestWaypointOutlivesANode(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	ns := o.namespace("outlives-")
	o.create(waypoint(ns, "waypoint"))
	least := func(want int32) {
		t.Helper()
		get(o, fmt.Sprintf("at least %d", want), ns, "waypoint", func(h *autoscalingv2.HorizontalPodAutoscaler) error {
			if *h.Spec.MinReplicas != want {
				return fmt.Errorf("at least %d", *h.Spec.MinReplicas)
			}
			return nil
		})
	}
	least(1)
	node := func(name string) *corev1.Node {
		return &corev1.Node{ObjectMeta: metav1.ObjectMeta{
			GenerateName: name, Labels: map[string]string{corev1.LabelOSStable: "linux"},
		}}
	}
	one, two := node("one-"), node("two-")
	for _, n := range []*corev1.Node{one, two} {
		require.NoError(t, o.Create(t.Context(), n))
		t.Cleanup(func() { _ = o.Delete(context.Background(), n) })
	}
	least(2)
	require.NoError(t, o.Delete(t.Context(), two))
	least(1)
	finishDaemonSet(o)
}

// TestAutomaticWaypoint: it comes and goes with the need; a Gateway of the user's of the same name stays.
func TestAutomaticWaypoint(t *testing.T) {
	o := start(t, shared.Config(t))
	ns, users := o.namespace("auto-"), o.namespace("users-")
	o.create(waypoint(users, names.AutomaticWaypoint))
	for _, n := range []string{ns, users} {
		o.tell(func() { o.automatic[n] = true }, o.automaticChanged, types.NamespacedName{Name: n})
	}
	// There is no Mesh when the namespaces are looked at, which they are once a later request is served: from then on only
	// the Mesh can be what makes the operator look again.
	o.automaticChanged.Notify(types.NamespacedName{Name: "later"})
	eventually.NoError(o.t, "the namespaces are looked at", func() error {
		if !o.lookedAt("later") {
			return errors.New("not yet")
		}
		return nil
	})
	o.mesh()
	g := get(o, "it comes", ns, names.AutomaticWaypoint, func(g *gwv1.Gateway) error {
		return condition(g.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted")
	})
	require.Equal(t, "true", g.Labels[names.LabelAutomatic])
	// It goes with the Mesh and the operator's namespace, if there is no operator to take it down before.
	require.ElementsMatch(t, []string{"Mesh", "Namespace"}, owners(g))

	// A leader that has not read the cluster yet knows of no need, and removes nothing. Requests are served one after the
	// other: once the second namespace has its waypoint, the first was looked at.
	unread := o.namespace("unread-")
	o.tell(func() { delete(o.automatic, ns); o.automatic[unread] = true }, o.automaticChanged,
		types.NamespacedName{Name: ns})
	o.automaticChanged.Notify(types.NamespacedName{Name: unread})
	get(o, "a need that is known", unread, names.AutomaticWaypoint, exists[*gwv1.Gateway])
	require.NoError(t, o.Get(context.Background(), client.ObjectKeyFromObject(g), g))
	require.Nil(t, g.DeletionTimestamp)

	for _, n := range []string{ns, users} {
		o.tell(func() { o.automatic[n] = false }, o.automaticChanged, types.NamespacedName{Name: n})
	}
	eventually.NoError(o.t, "it goes", func() error { return o.gone(g) })
	require.NoError(t, o.Get(context.Background(), client.ObjectKey{Namespace: users, Name: names.AutomaticWaypoint}, g))

	// Deleted by hand, it comes back while it is needed.
	o.tell(func() { o.automatic[ns] = true }, o.automaticChanged, types.NamespacedName{Name: ns})
	g = get(o, "it comes again", ns, names.AutomaticWaypoint, exists[*gwv1.Gateway])
	uid := g.UID
	require.NoError(t, o.Delete(context.Background(), g))
	get(o, "it comes back", ns, names.AutomaticWaypoint, func(g *gwv1.Gateway) error {
		if g.UID == uid {
			return errors.New("still the former one")
		}
		return nil
	})
	finishDaemonSet(o)
}
