// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// second is an agent in a pod of its own.
type second struct {
	*Agent
	proxy *world
	pod   *corev1.Pod
	end   func() error
}

// another agent of the node, with a proxy of its own. It drains for an hour.
func (f *fixture) another(name string, change ...func(*world)) *second {
	f.t.Helper()
	s := &second{proxy: newWorld(f.t)}
	for _, c := range change {
		c(s.proxy)
	}
	f.do(func() { f.beside = append(f.beside, s.proxy) })
	s.pod = f.pod(name, "", func(p *corev1.Pod) {
		p.Namespace, p.Labels[names.LabelComponent] = names.SystemNamespace, names.ComponentNode
		p.Spec.HostNetwork, p.Spec.TerminationGracePeriodSeconds = true, new(int64(3600))
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: v1alpha1.PodConditionServing}}
	})
	f.t.Cleanup(func() {
		err := f.Delete(context.Background(), s.pod, client.GracePeriodSeconds(0))
		require.NoError(f.t, client.IgnoreNotFound(err))
	})
	s.Agent, s.end = f.launch(s.proxy, Options{
		PodName: name, PodUID: string(s.pod.UID), Drain: time.Hour, Registerer: prometheus.NewRegistry(),
	})
	return s
}

// deleted, and told to stop for that, it may go on for a while.
func (f *fixture) deleted(s *second) <-chan error {
	f.t.Helper()
	require.NoError(f.t, f.Delete(context.Background(), s.pod))
	done := make(chan error, 1)
	go func() { done <- s.end() }()
	return done
}

// serving waits until an agent says whether its proxy serves.
func (f *fixture) serving(s *second, is corev1.ConditionStatus, message string) {
	f.t.Helper()
	eventually.NoError(f.t, fmt.Sprintf("condition Serving %s", is), func() error {
		now := &corev1.Pod{}
		if err := f.Get(context.Background(), client.ObjectKeyFromObject(s.pod), now); err != nil {
			return err
		}
		c := conditions.OfPod(now, v1alpha1.PodConditionServing)
		if c == nil || c.Status != is || c.Message != message {
			return fmt.Errorf("have %v", c)
		}
		return nil
	})
}

func (w *world) happened(t *testing.T, what string) {
	t.Helper()
	eventually.True(t, what, func() bool { return w.index(what) >= 0 })
}

// starts asks as the CNI plugin does for a new pod.
func (f *fixture) starts(name, ip string) {
	f.t.Helper()
	p := f.pod(name, "")
	path := filepath.Join(f.netnsDir, "ns-"+name)
	require.NoError(f.t, os.WriteFile(path, nil, 0o600))
	eventually.NoError(f.t, "the pod starts captured", func() error {
		if a := f.ask(addRequest(p, path, ip)); a != (plugin.Response{Captured: true}) {
			return errors.New(a.Error)
		}
		return nil
	})
	f.do(func() { f.sandboxes[string(p.UID)] = path })
	f.run(p, ip)
}

const servesAll = "The node proxy serves all captured pods of its node."

// Another agent's proxy listens beside the first one's, and the agent takes over when that serves all pods: not before,
// and without a word that changes anything for the pods.
func TestAnotherAgentTakesOver(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	a := f.another("a")
	p := f.captured("cart")
	f.serving(a, corev1.ConditionTrue, servesAll)

	// One that never serves changes nothing, also when it goes.
	before := len(f.history())
	failing := f.another("failing", func(w *world) { w.caDown = true })
	f.serving(failing, corev1.ConditionFalse, "The node proxy doesn't serve all captured pods of its node yet: "+
		"it doesn't listen in "+client.ObjectKeyFromObject(p).String()+".")
	require.NoError(t, f.Delete(t.Context(), failing.pod, client.GracePeriodSeconds(0)))
	require.NoError(t, failing.end())
	require.Len(t, f.history(), before, "%v", f.history())
	require.Equal(t, -1, failing.proxy.index("snapshot true"))

	b := f.another("b")
	f.serving(b, corev1.ConditionTrue, servesAll)
	require.Len(t, b.proxy.listenerNames(), 3)
	require.Len(t, f.history(), before, "the one in charge writes the rules alone")
	f.starts("second", "10.244.1.6")
	eventually.True(t, "both proxies listen there", func() bool {
		return len(a.proxy.listenerNames()) == 6 && len(b.proxy.listenerNames()) == 6
	})

	a.proxy.do(func() { a.proxy.connections = 1 })
	before = len(f.history())
	ended := f.deleted(a)
	a.proxy.happened(t, "close listeners")
	now := &corev1.Pod{}
	require.NoError(t, f.Get(t.Context(), client.ObjectKeyFromObject(a.pod), now))
	require.Equal(t, names.ComponentNodeDraining, now.Labels[names.LabelComponent], "so that another pod may come")
	require.Equal(t, -1, f.index("remove"), "%v", f.history()[before:])
	require.Empty(t, ended, "a connection is open")
	f.starts("third", "10.244.1.7")
	eventually.True(t, "its proxy listens there", func() bool { return len(b.proxy.listenerNames()) == 9 })
	require.Len(t, a.proxy.listenerNames(), 6)
	a.proxy.do(func() { a.proxy.connections = 0 })
	require.NoError(t, <-ended)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.Len(t, f.queues, 2)
	for _, is := range f.queues {
		require.Equal(t, "0", is, "as it was")
	}
}

// An agent whose proxy doesn't serve all pods takes over only if the one in charge goes all the same: pods must be able
// to start. The former proxy listens until the next one serves all.
func TestSomebodyIsInCharge(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	a := f.another("a")
	p := f.captured("cart")
	b := f.another("b", func(w *world) { w.caDown = true })
	strict := &v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: f.namespace, Name: "strict"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Namespace"}},
			MTLS:       &v1alpha1.MTLSAuthentication{Mode: v1alpha1.MTLSModeStrict},
		},
	}
	lacks := "The node proxy doesn't serve all captured pods of its node yet: it doesn't listen in " +
		client.ObjectKeyFromObject(p).String() + "."
	f.serving(b, corev1.ConditionFalse, lacks)

	ended := f.deleted(a)
	b.proxy.happened(t, "snapshot true")
	f.starts("second", "10.244.1.6")
	f.serving(b, corev1.ConditionFalse, lacks)
	require.Equal(t, -1, a.proxy.index("close listeners"), "the other proxy doesn't listen everywhere")
	require.Empty(t, ended)

	// The former proxy takes plaintext still, though that is refused since.
	require.NoError(t, f.Create(t.Context(), strict))
	endings := func() int {
		return len(slices.DeleteFunc(f.history(), func(s string) bool { return s != "end plaintext ns-cart 8080=true" }))
	}
	eventually.True(t, "plaintext is ended again and again", func() bool { return endings() > 2 })
	b.proxy.do(func() { b.proxy.caDown = false })
	require.NoError(t, <-ended)
	require.NotEqual(t, -1, a.proxy.index("close listeners"))
	f.serving(b, corev1.ConditionTrue, servesAll)
}

// An agent whose pod is deleted goes on until the next one serves, which may never come, or be of a version that
// doesn't say so.
func TestNoOtherAgentComes(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	a := f.another("a")
	f.serving(a, corev1.ConditionTrue, servesAll)
	f.pod("former-version", "", func(p *corev1.Pod) {
		p.Namespace, p.Labels[names.LabelComponent] = names.SystemNamespace, names.ComponentNode
	})
	require.NoError(t, f.Delete(t.Context(), a.pod))
	require.NoError(t, a.end())
	require.Equal(t, -1, a.proxy.index("close listeners"), "it would have refused connections that it could take")
}

// replacing are two agents whose proxies serve: the one in charge, and the next.
func (f *fixture) replacing() (former, next *second) {
	f.t.Helper()
	former = f.another("a")
	f.serving(former, corev1.ConditionTrue, servesAll)
	next = f.another("b")
	f.serving(next, corev1.ConditionTrue, servesAll)
	return former, next
}

// drains deletes the pod of an agent whose proxy has a connection, which another one replaces.
func (f *fixture) drains(a *second) (ended <-chan error) {
	f.t.Helper()
	a.proxy.do(func() { a.proxy.connections = 1 })
	ended = f.deleted(a)
	a.proxy.happened(f.t, "close listeners")
	return ended
}

// captured is a pod that runs and is captured.
func (f *fixture) captured(name string) *corev1.Pod {
	f.t.Helper()
	p := f.pod(name, "")
	f.sandbox(f.t, string(p.UID), "ns-"+name)
	f.run(p, "10.244.1.5")
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	return p
}

// An agent whose container alone is started anew comes back to the same proxy, which must be listening then. Its pod
// stays the DaemonSet's.
func TestAgentIsStartedAnew(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	a, _ := f.replacing()
	require.NoError(t, a.end())
	require.Equal(t, -1, a.proxy.index("close listeners"))
	now := &corev1.Pod{}
	require.NoError(t, f.Get(t.Context(), client.ObjectKeyFromObject(a.pod), now))
	require.Equal(t, names.ComponentNode, now.Labels[names.LabelComponent])
}

// A proxy that dies while it drains has no connection that could be waited for.
func TestAProxyThatDiesDrainsNoLonger(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	a, _ := f.replacing()
	ended := f.drains(a)
	require.Empty(t, ended, "a connection is open")
	a.proxy.do(func() { a.proxy.died = true })
	require.NoError(t, <-ended)
}

// What drains ends at once when the mesh leaves the node.
func TestUninstallationEndsWhatDrains(t *testing.T) {
	f := setUp(t)
	ds := f.daemonSet()
	a, b := f.replacing()
	ended := f.drains(a)
	require.NoError(t, f.Delete(t.Context(), ds))
	require.NoError(t, b.end())
	require.NoError(t, <-ended)
}

// An uninstallation may come while one agent drains and the next one's pod hasn't begun, as when its image is pulled.
// The one that drains is the last, and takes the mesh off the node.
func TestUninstallationBeforeTheNextAgentBegins(t *testing.T) { uninstallBeforeTheNext(t, false) }

// The agent's rights may be gone with all else by then.
func TestUninstallationThatTookTheRights(t *testing.T) { uninstallBeforeTheNext(t, true) }

func uninstallBeforeTheNext(t *testing.T, forbidden bool) {
	f := setUp(t)
	ds := f.daemonSet()
	a := f.another("a")
	f.captured("cart")
	f.serving(a, corev1.ConditionTrue, servesAll)
	pulling := f.pod("pulling", "", func(p *corev1.Pod) {
		p.Namespace, p.Labels[names.LabelComponent] = names.SystemNamespace, names.ComponentNode
		p.Spec.ReadinessGates = []corev1.PodReadinessGate{{ConditionType: v1alpha1.PodConditionServing}}
	})
	ended := f.deleted(a)
	eventually.True(t, "it steps aside", func() bool {
		now := &corev1.Pod{}
		return f.Get(t.Context(), client.ObjectKeyFromObject(a.pod), now) == nil &&
			now.Labels[names.LabelComponent] == names.ComponentNodeDraining
	})
	eventually.True(t, "nobody is in charge", func() bool {
		_, taken, err := a.charge.Other()
		return err == nil && !taken
	})
	require.Equal(t, -1, f.index("remove"))
	if forbidden {
		mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
		require.NoError(t, f.Delete(t.Context(), mesh))
		for kind, namespace := range map[string]string{"ClusterRoleBinding": "", "RoleBinding": names.SystemNamespace} {
			binding := &unstructured.Unstructured{}
			binding.SetGroupVersionKind(schema.GroupVersionKind{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: kind})
			binding.SetNamespace(namespace)
			binding.SetName(names.NodeServiceAccount)
			require.NoError(t, f.Delete(t.Context(), binding))
		}
	}
	require.NoError(t, f.Delete(t.Context(), ds))
	require.NoError(t, f.Delete(t.Context(), pulling))
	require.NoError(t, <-ended)
	require.NotEqual(t, -1, f.index("remove ns-cart"), "%v", f.history())
	require.NotEqual(t, -1, f.index("remove host"))
}
