// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/reconcile"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// restart is what is left when an agent crashed: the kernel's rules, and nothing that it knew.
func (f *fixture) restart(meanwhile func()) {
	f.t.Helper()
	require.NoError(f.t, f.stop())
	f.do(func() {
		f.log, f.listeners, f.wanted, f.ready = nil, map[string]string{}, map[string]int{}, false
		if meanwhile != nil {
			meanwhile()
		}
	})
	f.start()
}

func (f *fixture) probed(ips ...string) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	have := map[string]bool{}
	for _, p := range f.host {
		have[p.Addr().String()] = true
	}
	return slices.Equal(slices.Sorted(maps.Keys(have)), ips)
}

func addRequest(p *corev1.Pod, path, ip string) plugin.Request {
	return plugin.Request{
		Command: plugin.CommandAdd, ContainerID: "c", Netns: path, IfName: "eth0", PodNamespace: p.Namespace, PodName: p.Name,
		PodUID: string(p.UID), IPs: []netip.Addr{netip.MustParseAddr(ip)},
	}
}

// CNI ADD captures a pod while a worker asks the runtime, which doesn't know the pod's sandbox yet.
func TestStartingPodKeepsItsListeners(t *testing.T) {
	f := setUp(t)
	f.start()
	eventually.True(f.t, "the agent has started", func() bool { return f.index("ready ") >= 0 })
	p := f.pod("cart", "")
	path := filepath.Join(f.netnsDir, "ns-cart")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	captured := make(chan plugin.Response, 1)
	f.do(func() {
		f.asked = func(pod netns.Pod) {
			f.do(func() { f.asked = nil })
			captured <- f.ask(addRequest(p, path, "10.244.1.5"))
		}
	})
	f.run(p, "10.244.1.5")
	require.Equal(t, plugin.Response{Captured: true}, <-captured)
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.Equal(t, -1, f.index("unset "), "the pod's listeners never go")
}

// A runtime that cleans up an old sandbox after a reboot knows no namespace of it; the pod has a new one by then.
func TestCleanUpOfAnOldSandbox(t *testing.T) {
	f := setUp(t)
	f.start()
	p := f.pod("cart", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-cart")
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	del := addRequest(p, "", "10.244.1.5")
	del.Command = plugin.CommandDel
	require.Equal(t, plugin.Response{}, f.ask(del))
	require.Equal(t, -1, f.index("unset "))

	require.NoError(t, os.Remove(path))
	f.do(func() { delete(f.sandboxes, string(p.UID)) })
	require.Equal(t, plugin.Response{}, f.ask(del))
	eventually.True(f.t, "of the one that is gone nothing stays", func() bool { return len(f.listenerNames()) == 0 })
}

// Nothing that happens to one pod after a restart may take the probes of another.
func TestRestartKeepsProbes(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	f.ensure(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}})
	held := func(p *corev1.Pod) {
		p.Labels[names.LabelMTLSMode] = names.MTLSStrict
		p.Finalizers = []string{"example.org/hold"} // a long grace period
	}
	strict := func(p *corev1.Pod) { p.Labels[names.LabelMTLSMode] = names.MTLSStrict }
	one, two := f.pod("one", "10.244.1.5", strict), f.pod("two", "10.244.1.6", held)
	job := f.pod("job", "10.244.1.7", func(p *corev1.Pod) { p.Spec.Containers[0].ReadinessProbe = nil })
	for _, p := range []*corev1.Pod{one, two, job} {
		f.sandbox(t, string(p.UID), "ns-"+p.Name)
	}
	f.start()
	for _, p := range []*corev1.Pod{one, two, job} {
		f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	}
	t.Cleanup(func() {
		now := &corev1.Pod{}
		require.NoError(t, f.Get(context.Background(), client.ObjectKeyFromObject(two), now))
		now.Finalizers = nil
		require.NoError(t, f.Update(context.Background(), now))
	})
	require.NoError(t, f.Delete(context.Background(), two))
	eventually.True(f.t, "two terminates", func() bool { return f.state(two).Reason == v1alpha1.PodReasonTerminating })
	f.restart(func() { f.proxyDown = true })
	eventually.True(f.t, "no pod is taken up yet", func() bool { return f.state(one).State == pods.StateFailed })
	require.True(t, f.probed("10.244.1.5", "10.244.1.6"), "%v", f.host)

	// The job ends.
	before := job.DeepCopy()
	job.Status.Phase = corev1.PodSucceeded
	require.NoError(t, f.Status().Patch(context.Background(), job, client.MergeFrom(before)))
	eventually.True(f.t, "the job is forgotten", func() bool { return f.index("unset mtls/"+string(job.UID)) >= 0 })
	require.True(t, f.probed("10.244.1.5", "10.244.1.6"), "%v", f.host)
	f.do(func() { f.proxyDown = false })
	eventually.True(f.t, "captured again", func() bool { return f.state(one).State == pods.StateCaptured })
	require.True(t, f.probed("10.244.1.5", "10.244.1.6"), "%v", f.host)
}

// A silent container runtime holds up the start for a bounded time, however many pods there are.
func TestStartWithoutRuntime(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	f.ensure(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}})
	var all []*corev1.Pod
	for _, ip := range []string{"10.244.1.5", "10.244.1.6", "10.244.1.7", "10.244.1.8"} {
		p := f.pod("cart-"+ip[len(ip)-1:], ip)
		f.sandbox(t, string(p.UID), "ns-"+p.Name)
		all = append(all, p)
	}
	f.start()
	for _, p := range all {
		f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	}
	began := time.Now()
	f.restart(func() { f.runtimeDown = true })
	eventually.True(f.t, "the agent starts", func() bool { return f.index("ready ") >= 0 })
	require.Less(t, time.Since(began), 3*time.Second, "one deadline for all pods")
	require.True(t, f.probed("10.244.1.5", "10.244.1.6", "10.244.1.7", "10.244.1.8"), "%v", f.host)
	require.Equal(t, -1, f.index("remove "), "whose rules these are is not known yet")
	f.do(func() { f.runtimeDown = false })
	for _, p := range all {
		eventually.True(f.t, "taken up later", func() bool { return f.state(p).State == pods.StateCaptured })
	}
	require.Equal(t, -1, f.index("remove "))
}

// The container runtime names a pod's sandbox only once it is complete, a moment after CNI ADD.
func TestRestartRightAfterAdd(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	f.ensure(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}})
	f.start()
	p, out := f.pod("cart", ""), f.pod("out", "10.244.1.6")
	path := filepath.Join(f.netnsDir, "ns-cart")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Equal(t, plugin.Response{Captured: true}, f.ask(addRequest(p, path, "10.244.1.5")))
	outPath := f.sandbox(t, string(out.UID), "ns-out")
	f.condition(out, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.NoError(t, f.stop())
	before := out.DeepCopy()
	out.Labels = map[string]string{names.LabelMesh: names.MeshDisabled}
	require.NoError(t, f.Patch(context.Background(), out, client.MergeFrom(before)))
	f.restart(nil)
	eventually.True(f.t, "the agent starts", func() bool { return f.index("ready ") >= 0 })
	require.NotEqual(t, -1, f.index("remove ns-out"), "its owner is known, so its rules go at once")
	require.Less(t, f.index("remove ns-out"), f.index("ready "), outPath)
	f.do(func() { f.sandboxes[string(p.UID)] = path })
	f.run(p, "10.244.1.5")
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.Equal(t, -1, f.index("remove ns-cart"))
}

// A node makes static pods by itself: they have no account, so no identity. One that an earlier version captured is let
// go, though the runtime knows it by another UID than the API server.
func TestStaticPodIsLetGo(t *testing.T) {
	f := setUp(t)
	f.sandbox(t, "of-its-file", "ns-static")
	p := f.pod("static", "10.244.1.5", func(p *corev1.Pod) {
		p.Spec.ServiceAccountName = ""
		p.Annotations = map[string]string{names.AnnotationStatic: "of-its-file", names.AnnotationMirror: "of-its-file"}
	})
	before := p.DeepCopy()
	p.Status.Conditions = append(p.Status.Conditions, corev1.PodCondition{
		Type:   v1alpha1.PodConditionCaptured,
		Status: corev1.ConditionTrue, Reason: v1alpha1.PodReasonCaptured,
	})
	require.NoError(t, f.Status().Patch(t.Context(), p, client.StrategicMergeFrom(before)))
	f.start()
	f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonNoServiceAccount)
	eventually.True(f.t, "its rules go", func() bool { return f.index("remove ns-static") >= 0 })
	require.Equal(t, -1, f.index("apply "))
}

// Where the network plugin has ranges of its own, what other pods send would leave in plaintext.
func TestPodOutsideOfTheRanges(t *testing.T) {
	f := setUp(t)
	f.start()
	p, next := f.pod("cart", "192.168.7.5"), f.pod("next", "")
	f.sandbox(t, string(p.UID), "ns-cart")
	c := f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonCaptureFailed)
	require.Contains(t, c.Message, "[192.168.7.5] are in none of the mesh's pod ranges [10.244.0.0/16]")
	require.Contains(t, c.Message, "spec.network.podCIDRs")
	answer := f.ask(addRequest(next, filepath.Join(f.netnsDir, "ns-next"), "192.168.7.6"))
	require.Contains(t, answer.Error, "spec.network.podCIDRs")
	require.Equal(t, -1, f.index("apply "))
	mesh := testMesh()
	mesh.Status.Network.PodCIDRs = []string{"192.168.0.0/16"}
	f.setMesh(mesh)
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
}

// The rules of an earlier version know another mark than this run's proxy has: they would lead what it sends back to
// it.
func TestRulesAreUpToDateBeforeTheProxyListens(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	f.ensure(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}})
	p := f.pod("cart", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.Less(t, f.index("prepare ns-cart"), f.index("set outbound/"),
		"a pod that runs must not see what the proxy sends")
	require.GreaterOrEqual(t, f.index("prepare ns-cart"), 0)
	late := f.pod("late", "")
	f.sandbox(t, string(late.UID), "ns-late")
	f.run(late, "10.244.1.6")
	f.condition(late, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.GreaterOrEqual(t, f.index("prepare ns-late"), 0)
	require.Less(t, f.index("prepare ns-late"), f.index("set outbound/"+string(late.UID)))
	f.restart(func() { f.rules[path] = []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")} })
	eventually.True(f.t, "the agent has started", func() bool { return f.index("ready ") >= 0 })
	renewed := f.index("apply ns-cart")
	require.GreaterOrEqual(t, renewed, 0)
	require.Less(t, renewed, f.index("set outbound/"+string(p.UID)))
	require.Less(t, renewed, f.index("ready "))
	require.Equal(t, -1, f.index("prepare "), "it stays captured")
}

// TestPodsThatTheWatchDoesntShowYet are kept: CNI ADD captures what it reads past the watch, and something else about
// the name, such as the end of a pod that had it before, may be looked at meanwhile. They are said to be captured, for
// they may be ready before the watch is back. One that it never shows is gone.
func TestPodsThatTheWatchDoesntShowYet(t *testing.T) {
	f := setUp(t)
	f.start()
	eventually.True(t, "the agent is in charge", func() bool { return f.index("ready ") >= 0 })
	// Of another node, so that the watch doesn't show it.
	fresh := f.pod("cart-0", "", func(p *corev1.Pod) { p.Spec.NodeName = "elsewhere" })
	target := enrol.NewTarget(fresh, testMesh(), member.Decision{Action: member.Capture},
		f.sandbox(t, string(fresh.UID), "ns-cart"), []netip.Addr{netip.MustParseAddr("10.244.1.5")})
	require.NoError(t, f.agent.pods.Start(t.Context(), fresh, member.Decision{Action: member.Capture}, target))
	require.Len(t, f.listenerNames(), 3)
	look := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(fresh)}
	result, err := f.agent.pods.Reconcile(t.Context(), look)
	require.NoError(t, err)
	require.Len(t, f.listenerNames(), 3)
	require.Positive(t, result.RequeueAfter)
	f.condition(fresh, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	eventually.True(t, "it is forgotten", func() bool {
		_, err := f.agent.pods.Reconcile(t.Context(), look)
		require.NoError(t, err)
		return len(f.listenerNames()) == 0
	})
}

// TestSandboxesThatTheRuntimeDoesntNameYet are kept, while the pod's status has the addresses of the one before.
func TestSandboxesThatTheRuntimeDoesntNameYet(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5")
	f.sandbox(t, string(p.UID), "ns-former")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	f.do(func() { delete(f.sandboxes, string(p.UID)) })
	require.NoError(t, os.Remove(filepath.Join(f.netnsDir, "ns-former")))
	path := filepath.Join(f.netnsDir, "ns-cart")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	require.Equal(t, plugin.Response{Captured: true}, f.ask(addRequest(p, path, "10.244.1.6")))
	look := reconcile.Request{NamespacedName: client.ObjectKeyFromObject(p)}
	result, err := f.agent.pods.Reconcile(t.Context(), look)
	require.NoError(t, err)
	require.Positive(t, result.RequeueAfter)
	require.Len(t, f.listenerNames(), 3)
	eventually.True(t, "it is forgotten if it never comes to be", func() bool {
		_, err := f.agent.pods.Reconcile(t.Context(), look)
		require.NoError(t, err)
		return len(f.listenerNames()) == 0
	})
}
