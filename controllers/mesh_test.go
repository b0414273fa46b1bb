// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers_test

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/deploy"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/names"
)

var meshName = types.NamespacedName{Name: names.Mesh}

// TestMesh follows a Mesh from its creation to Ready, and to its end.
func TestMesh(t *testing.T) {
	o := start(t, shared.Config(t))
	o.certificates = controllers.CertificatesStatus{
		Reason:  v1alpha1.MeshReasonIssuerNotReady,
		Message: "Issuer ca is missing.",
	}
	o.mesh()

	// Without a CA there are no node proxies, and an Event says what is missing.
	get(o, "the Mesh waits for the CA", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		if m.Status.Network == nil || len(m.Status.Network.ServiceCIDRs) != 1 ||
			m.Status.Network.PodCIDRs[0] != "10.244.0.0/16" {
			return fmt.Errorf("network is %v", m.Status.Network)
		}
		return errors.Join(
			condition(m.Status.Conditions, "CertificatesReady", metav1.ConditionFalse, "IssuerNotReady"),
			condition(m.Status.Conditions, "NetworkReady", metav1.ConditionTrue, "Configured"),
			condition(m.Status.Conditions, "NodesReady", metav1.ConditionFalse, "Pending"),
			condition(m.Status.Conditions, "GatewayAPIReady", metav1.ConditionTrue, "Installed"),
			condition(m.Status.Conditions, "Ready", metav1.ConditionFalse, "IssuerNotReady"),
			progress(m.Status.Conditions, v1alpha1.ConditionStalled))
	})
	o.event("Mesh", "IssuerNotReady", "Issuer ca is missing.")

	// With a CA they are deployed; the status follows the DaemonSet and its pods.
	o.tell(func() {
		o.certificates = controllers.CertificatesStatus{Ready: true, Signing: true, Reason: v1alpha1.MeshReasonIssued}
		o.reports = []controllers.NodeReport{{Node: "a", Captured: 3}, {Node: "b", Captured: 4}}
	}, o.certificatesChanged, meshName)
	ds := get(o, "the DaemonSet appears", o.system, names.NodeDaemonSet, func(*appsv1.DaemonSet) error { return nil })
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: o.system, Name: "fairway-node-x", Labels: deploy.NodeLabels()},
		Spec: corev1.PodSpec{
			NodeName: "b", Containers: []corev1.Container{{Name: "agent", Image: "x"}},
			ServiceAccountName: "default",
		},
	}
	o.create(&corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Namespace: o.system, Name: "default"}}, pod)
	changeStatus(o, o.system, pod.Name, func(p *corev1.Pod) {
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{Name: "agent", State: corev1.ContainerState{
			Waiting: &corev1.ContainerStateWaiting{Reason: "ImagePullBackOff"},
		}}}
	})
	setDaemonSet(o, 2, 1)
	get(o, "one node is stuck", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		return progress(m.Status.Conditions, v1alpha1.ConditionStalled)
	})
	get(o, "one node is not ready", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		err := condition(m.Status.Conditions, "Ready", metav1.ConditionFalse, "NodesNotReady")
		if want := "NodesReady: 1 of 2 node proxies are ready; not ready: b (agent: ImagePullBackOff)."; err == nil &&
			messageOf(m.Status.Conditions, "Ready") != want {
			return errors.New(messageOf(m.Status.Conditions, "Ready"))
		}
		return err
	})
	setDaemonSet(o, 2, 2)
	get(o, "the Mesh is ready", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		if n := m.Status.Nodes; n == nil || n.Summary != "2/2" || n.CapturedPods != 7 {
			return fmt.Errorf("nodes are %+v", n)
		}
		return errors.Join(condition(m.Status.Conditions, "Ready", metav1.ConditionTrue, "Ready"),
			progress(m.Status.Conditions, ""))
	})
	o.event("Mesh", "Ready", "The mesh is up on 2 nodes.")
	o.renewalFails()
	get(o, "the class appears", "", names.WaypointClass, func(c *gwv1.GatewayClass) error {
		if len(c.Status.SupportedFeatures) == 0 {
			return errors.New("no features")
		}
		return errors.Join(condition(c.Status.Conditions, "Accepted", metav1.ConditionTrue, "Accepted"),
			condition(c.Status.Conditions, "SupportedVersion", metav1.ConditionTrue, "SupportedVersion"))
	})

	// A node without the CNI plugin is told.
	plugin := func(status corev1.ConditionStatus, message string) {
		changeStatus(o, o.system, pod.Name, func(p *corev1.Pod) {
			p.Status.Conditions = []corev1.PodCondition{
				{Type: v1alpha1.PodConditionPluginInstalled, Status: status, Message: message},
			}
		})
	}
	plugin(corev1.ConditionFalse, "No CNI configuration.")
	get(o, "a plugin is missing", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		err := condition(m.Status.Conditions, "Ready", metav1.ConditionFalse, "PluginMissing")
		if want := "NodesReady: New pods start uncaptured on some nodes: b (No CNI configuration)."; err == nil &&
			messageOf(m.Status.Conditions, "Ready") != want {
			return errors.New(messageOf(m.Status.Conditions, "Ready"))
		}
		return err
	})
	plugin(corev1.ConditionTrue, "")

	// A pod that can't be captured is told.
	o.tell(func() { o.reports[0].Problems = []string{"pod shop/cart"} }, o.nodesChanged, meshName)
	get(o, "a capture fails", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		return condition(m.Status.Conditions, "Ready", metav1.ConditionFalse, "CaptureFailed")
	})

	// So is an address that a node claims for a pod and that is another's: by the Mesh, since the node writes what the
	// pod says.
	o.tell(func() {
		o.reports[0].Problems = nil
		o.refused = []ingest.RefusedClaim{{
			Pod: types.NamespacedName{Namespace: "default", Name: "thief"}, UID: "u", Node: "b",
			Address: netip.MustParseAddr("10.244.0.5"), Why: "pod shop/cart on node a has it",
		}}
	}, o.nodesChanged, meshName)
	claim := "pod default/thief on node b claims 10.244.0.5, but pod shop/cart on node a has it."
	get(o, "a claim is refused", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		if message := messageOf(m.Status.Conditions, "AddressesReady"); !strings.HasSuffix(message, claim) {
			return errors.New(message)
		}
		return condition(m.Status.Conditions, "Ready", metav1.ConditionFalse, "AddressConflict")
	})
	o.event("Mesh", "AddressConflict", claim)
	o.event("Pod", "AddressConflict", "The mesh ignores an address: "+claim)
	o.tell(func() { o.refused = nil }, o.nodesChanged, meshName)
	get(o, "no claim is refused any more", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		return condition(m.Status.Conditions, "AddressesReady", metav1.ConditionTrue, "Unambiguous")
	})

	o.deleteMesh(ds, pod)
}

// deleteMesh deletes the Mesh, which goes at once. Of what it leaves, first no pod is captured any more, then goes what
// was said in statuses, then the DaemonSet, then its pods, then the policies. A node proxy on a node that is not ready
// can't go.
func (o *operator) deleteMesh(ds *appsv1.DaemonSet, pod *corev1.Pod) {
	o.t.Helper()
	ctx := context.Background()
	node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "lost"}}
	lost := pod.DeepCopy()
	lost.ObjectMeta = metav1.ObjectMeta{Namespace: o.system, Name: "fairway-node-lost", Labels: deploy.NodeLabels()}
	lost.Spec.NodeName = node.Name
	o.create(node, lost)
	o.t.Cleanup(func() { require.NoError(o.t, o.Delete(ctx, node)) })
	changeStatus(o, "", node.Name, func(n *corev1.Node) {
		n.Status.Conditions = []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionUnknown}}
	})
	o.statusesCleared.Store(false)
	asked := o.clearedAsked.Load()
	mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
	require.NoError(o.t, o.Delete(ctx, mesh))
	require.NoError(o.t, o.gone(mesh))
	require.Never(o.t, func() bool { return o.clearedAsked.Load() > asked }, 300*time.Millisecond, 50*time.Millisecond,
		"pods are captured")
	o.tell(func() { o.reports = nil }, o.nodesChanged, meshName)
	eventually.NoError(o.t, "the node proxies wait for statuses", func() error {
		if o.clearedAsked.Load() < asked+2 {
			return errors.New("nobody asks")
		}
		return nil
	})
	require.NoError(o.t, o.Get(ctx, client.ObjectKeyFromObject(ds), ds))
	require.Nil(o.t, ds.DeletionTimestamp)
	o.statusesCleared.Store(true)
	eventually.NoError(o.t, "the DaemonSet is being deleted", func() error {
		if err := o.gone(ds); err == nil || ds.DeletionTimestamp != nil {
			return nil
		}
		return errors.New("it is not")
	})
	// No garbage collector runs here: play it.
	change(o, o.system, names.NodeDaemonSet, func(d *appsv1.DaemonSet) { d.Finalizers = nil })
	policies := deploy.Policies(o.system)
	for _, p := range policies {
		require.Error(o.t, o.gone(p), "an agent runs")
	}
	require.NoError(o.t, o.Delete(ctx, pod, client.GracePeriodSeconds(0)))
	for _, p := range policies {
		eventually.NoError(o.t, "the policies go", func() error { return o.gone(p) })
	}
	o.event("DaemonSet", "NodesUnreachable", "some nodes were not ready: lost.")
}

// event waits for an Event of an object of a kind.
func (o *operator) event(kind, reason, note string) {
	o.t.Helper()
	eventually.NoError(o.t, "an Event tells "+reason, func() error {
		var events eventsv1.EventList
		if err := o.List(context.Background(), &events); err != nil {
			return err
		}
		for _, e := range events.Items {
			if e.Regarding.Kind == kind && e.Reason == reason && strings.Contains(e.Note, note) {
				return nil
			}
		}
		return fmt.Errorf("not among %+v", events.Items)
	})
}

// renewalFails: a renewal that fails is a condition and an Event; Ready says so once certificates have run out.
func (o *operator) renewalFails() {
	o.t.Helper()
	tell := func(r controllers.RenewalStatus) {
		o.tell(func() { o.certificates.Renewal = r }, o.certificatesChanged, meshName)
	}
	says := func(renewed, ready metav1.ConditionStatus, reason string) {
		o.t.Helper()
		get(o, "the renewal is "+reason, "", names.Mesh, func(m *v1alpha1.Mesh) error {
			summary := reason
			if ready == metav1.ConditionTrue {
				summary = v1alpha1.MeshReasonReady
			}
			return errors.Join(
				condition(m.Status.Conditions, v1alpha1.MeshConditionCertificatesRenewed, renewed, reason),
				condition(m.Status.Conditions, v1alpha1.MeshConditionReady, ready, summary))
		})
	}
	says(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.MeshReasonRenewed)
	failing := controllers.RenewalStatus{Reason: v1alpha1.MeshReasonIssuerDenied, Message: "policy says no."}
	tell(failing)
	says(metav1.ConditionFalse, metav1.ConditionTrue, v1alpha1.MeshReasonIssuerDenied)
	o.event("Mesh", v1alpha1.MeshReasonIssuerDenied, "Policy says no.")
	failing.Lost = true
	tell(failing)
	says(metav1.ConditionFalse, metav1.ConditionFalse, v1alpha1.MeshReasonIssuerDenied)
	tell(controllers.RenewalStatus{})
	says(metav1.ConditionTrue, metav1.ConditionTrue, v1alpha1.MeshReasonRenewed)
}

// TestPaused: what runs stays as it is, and what is missing is made.
func TestPaused(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	pause := func(paused bool) {
		change(o, "", names.Mesh, func(m *v1alpha1.Mesh) {
			m.Spec.Paused = paused
			m.Spec.Images = &v1alpha1.Images{Envoy: "envoy:next", PullSecrets: []corev1.LocalObjectReference{{Name: "registry"}}}
		})
	}
	envoyIs := func(want string) func(*appsv1.DaemonSet) error {
		return func(d *appsv1.DaemonSet) error {
			if got := d.Spec.Template.Spec.InitContainers[1].Image; got != want {
				return errors.New("Envoy is " + got)
			}
			return nil
		}
	}
	get(o, "the DaemonSet appears", o.system, names.NodeDaemonSet, envoyIs("envoy:test"))
	pause(true)
	get(o, "the Mesh says that it is paused", "", names.Mesh, func(m *v1alpha1.Mesh) error {
		if m.Status.ObservedGeneration != m.Generation {
			return errors.New("not observed")
		}
		require.Contains(t, messageOf(m.Status.Conditions, "Accepted"), "no proxy is replaced")
		return nil
	})
	get(o, "nothing was replaced", o.system, names.NodeDaemonSet, func(d *appsv1.DaemonSet) error {
		require.NoError(t, envoyIs("envoy:test")(d))
		return nil
	})
	ns := o.namespace("paused")
	o.create(waypoint(ns, "waypoint"))
	get(o, "a new waypoint is made", ns, "waypoint", func(d *appsv1.Deployment) error {
		require.Equal(t, "registry", d.Spec.Template.Spec.ImagePullSecrets[0].Name)
		return nil
	})
	pause(false)
	d := get(o, "the next ones come", o.system, names.NodeDaemonSet, envoyIs("envoy:next"))
	require.Equal(t, "registry", d.Spec.Template.Spec.ImagePullSecrets[0].Name)
	finishDaemonSet(o)
}

// TestNodeDaemonSetDrift: what the operator applied is restored, and what others added is left alone.
func TestNodeDaemonSetDrift(t *testing.T) {
	o := start(t, shared.Config(t))
	o.mesh()
	get(o, "the DaemonSet appears", o.system, names.NodeDaemonSet, func(*appsv1.DaemonSet) error { return nil })
	change(o, o.system, names.NodeDaemonSet, func(d *appsv1.DaemonSet) {
		d.Spec.Template.Spec.Containers[0].Image = "evil"
		d.Spec.Template.Spec.HostNetwork = false
		d.Labels["theirs"] = "stays"
	})
	get(o, "it is restored", o.system, names.NodeDaemonSet, func(d *appsv1.DaemonSet) error {
		if d.Spec.Template.Spec.Containers[0].Image != "fairway:test" || !d.Spec.Template.Spec.HostNetwork {
			return errors.New("it is not")
		}
		require.Equal(t, "stays", d.Labels["theirs"])
		return nil
	})
	finishDaemonSet(o)
}

// finishDaemonSet removes the Mesh and waits for what it leaves, playing the garbage collector.
func finishDaemonSet(o *operator) {
	o.t.Helper()
	mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
	require.NoError(o.t, o.Delete(context.Background(), mesh))
	eventually.NoError(o.t, "the node proxies go", func() error {
		ds := &appsv1.DaemonSet{ObjectMeta: metav1.ObjectMeta{Namespace: o.system, Name: names.NodeDaemonSet}}
		err := o.gone(ds)
		if err != nil && ds.DeletionTimestamp != nil && len(ds.Finalizers) > 0 {
			ds.Finalizers = nil
			_ = o.Update(context.Background(), ds)
		}
		return err
	})
}

func setDaemonSet(o *operator, desired, ready int32) {
	o.t.Helper()
	changeStatus(o, o.system, names.NodeDaemonSet, func(d *appsv1.DaemonSet) {
		d.Status = appsv1.DaemonSetStatus{
			ObservedGeneration: d.Generation, DesiredNumberScheduled: desired,
			CurrentNumberScheduled: desired, NumberReady: ready,
		}
	})
}

func messageOf(list []metav1.Condition, kind string) string {
	for _, c := range list {
		if c.Type == kind {
			return c.Message
		}
	}
	return ""
}
