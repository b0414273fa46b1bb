// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/agent/pods"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/member"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A pod that could not run with the proxy's listeners in its namespace is left out, and says why.
func TestPodThatWantsThePortsOfTheProxy(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5", func(p *corev1.Pod) {
		p.Spec.Containers = []corev1.Container{
			{Name: "proxy", Image: "proxy", Ports: []corev1.ContainerPort{{ContainerPort: 15006}}},
		}
	})
	f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	c := f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonReservedPort)
	require.Contains(t, c.Message, "container proxy declares port 15006")
	require.Equal(t, -1, f.index("apply ns-cart"))
	eventually.True(f.t, "the agent's own view follows the condition", func() bool {
		return f.state(p).State == pods.StateNotCaptured
	})
	eventually.True(f.t, "the Event warns", func() bool {
		var list eventsv1.EventList
		require.NoError(t, f.List(context.Background(), &list, client.InNamespace(f.namespace)))
		return slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool {
			return e.Reason == v1alpha1.PodReasonReservedPort && e.Type == corev1.EventTypeWarning
		})
	})
}

func TestRunningPodIsCapturedAndLetGo(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5")
	f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	c := f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.Contains(t, c.Message, "(permissive)")
	require.Less(t, f.index("want spiffe://cluster.local/ns/"+f.namespace+"/sa/cart"), f.index("apply ns-cart"))
	require.Less(t, f.index("set mtls/"), f.index("apply ns-cart"))
	require.Less(t, f.index("host 1"), f.index("apply ns-cart"), "probes are known before plaintext is looked at")
	require.Equal(t, []netip.AddrPort{netip.MustParseAddrPort("10.244.1.5:8080")}, f.host)
	eventually.True(f.t, "the agent's own view follows the condition", func() bool {
		return f.state(p).State == pods.StateCaptured && f.state(p).Mode == names.MTLSPermissive
	})

	// Another mode changes listeners and message, not the rules.
	patch := client.MergeFrom(p.DeepCopy())
	p.Labels = map[string]string{names.LabelMTLSMode: names.MTLSStrict}
	require.NoError(t, f.Patch(context.Background(), p, patch))
	eventually.True(f.t, "strict", func() bool { return f.state(p).Mode == names.MTLSStrict })
	eventually.True(f.t, "plaintext ends", func() bool {
		return f.index("end plaintext ns-cart") > f.index("apply ns-cart")
	})
	eventually.True(f.t, "the condition says strict", func() bool {
		return strings.Contains(f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured).Message, "(strict)")
	})

	// Other ranges.
	mesh := testMesh()
	mesh.Status.Network.PodCIDRs = []string{"10.244.0.0/16", "10.245.0.0/16"}
	f.setMesh(mesh)
	eventually.True(f.t, "ranges follow the Mesh", func() bool { return f.index("ranges ns-cart") > 0 })

	// Opting out.
	patch = client.MergeFrom(p.DeepCopy())
	p.Labels = map[string]string{names.LabelMesh: names.MeshDisabled}
	require.NoError(t, f.Patch(context.Background(), p, patch))
	f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonOptedOut)
	eventually.True(f.t, "listeners go", func() bool { return len(f.listenerNames()) == 0 })
	require.Less(t, f.index("drain ns-cart"), f.index("remove ns-cart"))
	require.Less(t, f.index("remove ns-cart"), f.index("unset mtls/"))
	eventually.True(f.t, "not captured", func() bool { return f.state(p).State == pods.StateNotCaptured })
	require.Empty(t, f.host)
	require.Empty(t, f.wanted)
}

func TestFailureIsSaidAndTriedAgain(t *testing.T) {
	f := setUp(t)
	f.caDown = true
	p := f.pod("cart", "10.244.1.5")
	f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	c := f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonCaptureFailed)
	require.Contains(t, c.Message, "no certificate")
	require.Contains(t, c.Message, "kubectl describe mesh")
	require.Equal(t, -1, f.index("apply"), "a running pod without a certificate is not redirected")
	// An Event tells why for as long as it goes on: kubectl describe shows no more of a condition than its status.
	eventually.True(f.t, "the failure is told again", func() bool {
		var list eventsv1.EventList
		require.NoError(t, f.List(t.Context(), &list, client.InNamespace(p.Namespace)))
		return slices.ContainsFunc(list.Items, func(e eventsv1.Event) bool {
			return e.Reason == v1alpha1.PodReasonCaptureFailed && e.Series != nil && strings.Contains(e.Note, "no certificate")
		})
	})
	f.do(func() { f.caDown = false })
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)

	// Somebody takes the rules away.
	f.do(func() { f.rules[f.sandboxes[string(p.UID)]] = []netip.Prefix{} })
	eventually.True(f.t, "rules are put back", func() bool {
		drift, err := f.Verify(f.sandboxes[string(p.UID)], capture.Pod{Ranges: testRanges()})
		return err == nil && len(drift) == 0
	})

	// The pod goes, and with it all that was done for it.
	require.NoError(t, f.Delete(context.Background(), p))
	eventually.True(f.t, "the pod is forgotten", func() bool {
		return len(f.listenerNames()) == 0 && len(f.agent.Snapshot()) == 0
	})
}

func TestStartingPod(t *testing.T) {
	f := setUp(t)
	f.caDown = true
	f.start()
	p := f.pod("cart", "")
	path := filepath.Join(f.netnsDir, "ns-cart")
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	req := plugin.Request{
		Command: plugin.CommandAdd, ContainerID: "c", Netns: path, IfName: "eth0", PodNamespace: f.namespace, PodName: "cart",
		PodUID: string(p.UID), IPs: []netip.Addr{netip.MustParseAddr("10.244.1.5")},
	}
	require.Equal(t, plugin.Response{Captured: true}, f.ask(req), "the certificate isn't waited for")
	require.NotEqual(t, -1, f.index("apply ns-cart"))
	require.Nil(t, member.Condition(p))
	f.do(func() {
		f.caDown = false
		f.sandboxes[string(p.UID)] = path
	})
	f.run(p, "10.244.1.5")
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)

	req.Command = plugin.CommandCheck
	require.Equal(t, plugin.Response{Captured: true}, f.ask(req))
	req.Command = plugin.CommandDel
	f.do(func() { delete(f.sandboxes, string(p.UID)) })
	require.Equal(t, plugin.Response{}, f.ask(req))
	eventually.True(f.t, "listeners leave the namespace", func() bool { return len(f.listenerNames()) == 0 })
}

// TestNothingStaysOpenInAPodThatIsGone: what proxies have open in its network ends before that goes. The pod needn't be
// known: one that was deleted by force isn't any more.
func TestNothingStaysOpenInAPodThatIsGone(t *testing.T) {
	f := setUp(t)
	f.start()
	del := func(open int) plugin.Response {
		path := filepath.Join(f.netnsDir, "ns-cart")
		require.NoError(t, os.WriteFile(path, nil, 0o600))
		f.do(func() { f.marked[path] = open })
		return f.ask(plugin.Request{Command: plugin.CommandDel, Netns: path, PodNamespace: f.namespace, PodName: "cart"})
	}
	require.Equal(t, plugin.Response{}, del(0))
	require.Equal(t, -1, f.index("end "))
	require.Equal(t, plugin.Response{}, del(2))
	require.NotEqual(t, -1, f.index("end 2 marked ns-cart"))
}

func TestStartingPodFailsClosed(t *testing.T) {
	f := setUp(t)
	f.start()
	p := f.pod("cart", "")
	f.proxyDown = true
	add := func(namespace, name, uid string) plugin.Response {
		return f.ask(plugin.Request{
			Command: plugin.CommandAdd, Netns: filepath.Join(f.netnsDir, "x"), PodNamespace: namespace, PodName: name,
			PodUID: uid,
			IPs:    []netip.Addr{netip.MustParseAddr("10.244.1.5")},
		})
	}
	require.Contains(t, add(f.namespace, "absent", "u").Error, "isn't known to the API server")
	require.Contains(t, add(f.namespace, "cart", "other").Error, "another of the same name")
	require.Equal(t, plugin.Response{}, add("default", "absent", "u"), "outside the mesh nobody asks")
	require.Contains(t, f.ask(plugin.Request{Command: "NO"}).Error, "unknown command")

	// A namespace that was labelled a moment ago, which the agent's cache may not know yet.
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace + "-new", Labels: map[string]string{
		names.LabelMesh: names.MeshEnabled,
	}}}
	f.ensure(ns)
	require.Contains(t, add(ns.Name, "absent", "u").Error, "isn't known to the API server")

	// The plugin's own knowledge, for the time without an agent.
	eventually.True(f.t, "the state file names the enrolled namespaces", func() bool {
		s, err := plugin.ReadState(filepath.Join(f.dir, "net.d", "fairway.d", "namespaces.json"))
		return err == nil && s.IsEnrolled(ns.Name) && s.IsEnrolled(f.namespace) && !s.IsEnrolled("default")
	})
	_ = p
}

func TestRestartLeavesCaptureAlone(t *testing.T) {
	f := setUp(t)
	f.daemonSet()
	f.ensure(&corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: f.node}})
	p := f.pod("cart", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.NoError(t, f.stop())
	require.Equal(t, -1, f.index("drain"))
	require.Equal(t, -1, f.index("remove"))
	require.FileExists(t, filepath.Join(f.dir, "bin", "fairway-cni"))

	// An orphan that a crash left, and a proxy that is away for a while.
	orphan := f.sandbox(t, "orphan", "ns-orphan")
	f.do(func() {
		f.rules[orphan] = f.rules[path]
		f.log, f.proxyDown, f.ready = nil, true, false
		f.listeners, f.wanted = map[string]string{}, map[string]int{}
	})
	f.start()
	eventually.True(f.t, "the proxy is missed", func() bool { return f.state(p).State == pods.StateFailed })
	require.Equal(t, corev1.ConditionTrue, f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured).Status,
		"its rules are still there")
	require.NotEqual(t, -1, f.index("ready 3"), "the proxy's first list is complete")
	eventually.True(f.t, "the orphan's rules go", func() bool { return f.index("remove ns-orphan") >= 0 })
	f.do(func() { f.proxyDown = false })
	eventually.True(f.t, "captured again", func() bool { return f.state(p).State == pods.StateCaptured })
	require.Equal(t, -1, f.index("apply"), "rules that are right are not touched")
}

func TestUninstallationLetsPodsGo(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5")
	f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	eventually.True(f.t, "the plugin is installed", func() bool {
		b, err := os.ReadFile(filepath.Join(f.dir, "net.d", "10-dev.conflist"))
		return err == nil && string(b) != originalCNI
	})
	require.NoError(t, f.stop())
	require.NotEqual(t, -1, f.index("remove ns-cart"))
	require.NotEqual(t, -1, f.index("remove host"))
	f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonUninstalled)
	b, err := os.ReadFile(filepath.Join(f.dir, "net.d", "10-dev.conflist"))
	require.NoError(t, err)
	require.Equal(t, originalCNI, string(b))
	for _, gone := range []string{"bin/fairway-cni", "net.d/fairway.d", "cni.sock"} {
		require.NoFileExists(t, filepath.Join(f.dir, gone))
	}
}

func TestMeshDeletionLetsPodsGo(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5")
	f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	require.NoError(t, f.Delete(context.Background(), &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}))
	f.condition(p, corev1.ConditionFalse, v1alpha1.PodReasonMeshAbsent)
	eventually.True(f.t, "nothing is left", func() bool {
		return f.index("remove ns-cart") >= 0 && len(f.listenerNames()) == 0
	})
}

func TestInDir(t *testing.T) {
	require.Equal(t, "/var/run/netns/cni-1", inDir("/run/netns/cni-1", names.NetnsDir))
	require.Equal(t, "/var/run/docker/netns/1", inDir("/run/docker/netns/1", "/var/run/docker/netns"))
	require.Equal(t, "/run/docker/netns/1", inDir("/run/docker/netns/1", names.NetnsDir))
	require.Equal(t, "/proc/7/ns/net", inDir("/proc/7/ns/net", names.NetnsDir))
}
