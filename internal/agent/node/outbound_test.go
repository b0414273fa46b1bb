// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestOutboundIsClosedAndOpened has a running pod closed by its namespace, and opened by its own label.
func TestOutboundIsClosedAndOpened(t *testing.T) {
	f := setUp(t)
	p := f.pod("server", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-server")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	label := func(o client.Object, value string) {
		patch := fmt.Appendf(nil, `{"metadata":{"labels":{%q:%q}}}`, names.LabelOutbound, value)
		require.NoError(t, f.Patch(t.Context(), o, client.RawPatch(types.MergePatchType, patch)))
	}
	says := func(closed bool) {
		t.Helper()
		eventually.True(t, fmt.Sprintf("closed: %t", closed), func() bool {
			f.mu.Lock()
			rules := f.closed[path]
			f.mu.Unlock()
			message := f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured).Message
			return rules == closed && f.state(p).Closed == closed && strings.Contains(message, "Outbound is closed") == closed
		})
	}
	says(false)
	require.Equal(t, -1, f.index("end outbound"))
	label(&corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: f.namespace}}, names.OutboundDeny)
	says(true)
	eventually.True(t, "what is open ends", func() bool { return f.index("end outbound ns-server closed=true") >= 0 })
	require.Less(t, f.index("ranges ns-server"), f.index("end outbound"), "new ones are refused by then")
	f.do(func() { f.beyond[path] = capture.Refused{Outbound: 7} })
	require.Contains(t, f.warned(p, v1alpha1.PodReasonOutboundRefused),
		"7 connections or packets to addresses outside of the mesh's ranges were refused")
	f.countedOnce("fairway_agent_outbound_refused_total", 7)
	label(p, names.OutboundAllow)
	says(false)
}

// TestStartingPodIsClosed before it has a process.
func TestStartingPodIsClosed(t *testing.T) {
	f := setUp(t)
	f.start()
	p := f.pod("job", "", func(p *corev1.Pod) { p.Labels[names.LabelOutbound] = names.OutboundDeny })
	path := f.sandbox(t, "not yet", "ns-job")
	answer := f.ask(plugin.Request{
		Command: plugin.CommandAdd, ContainerID: "c", Netns: path, IfName: "eth0", PodNamespace: f.namespace,
		PodName: p.Name, PodUID: string(p.UID), IPs: []netip.Addr{netip.MustParseAddr("10.244.1.5")},
	})
	require.Equal(t, plugin.Response{Captured: true}, answer)
	f.mu.Lock()
	defer f.mu.Unlock()
	require.True(t, f.closed[path])
}

// TestResolvers reads what kubelet wrote for the agent's own pod.
func TestResolvers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "resolv.conf")
	const text = "# comment\nsearch svc.cluster.local\nnameserver 169.254.20.10\nnameserver\nnameserver fe80::1%eth0\n" +
		"nameserver ::ffff:10.96.0.10\nnameserver 169.254.20.10\nnameserver dns\noptions ndots:5\n"
	require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
	have, err := Resolvers(path)
	require.NoError(t, err)
	require.Equal(t, []netip.Addr{
		netip.MustParseAddr("169.254.20.10"), netip.MustParseAddr("fe80::1"), netip.MustParseAddr("10.96.0.10"),
	}, have)
	_, err = Resolvers(path + ".gone")
	require.ErrorContains(t, err, "resolvers")
}
