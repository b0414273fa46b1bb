// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Where the plugin can't be installed, the agent's own pod says so, until it can.
func TestPluginThatCantBeInstalled(t *testing.T) {
	f := setUp(t)
	f.podName = "agent-" + f.node
	own := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Namespace: names.SystemNamespace, Name: f.podName},
		Spec: corev1.PodSpec{
			NodeName: f.node, HostNetwork: true, TerminationGracePeriodSeconds: new(int64(0)),
			Containers: []corev1.Container{{Name: "agent", Image: "agent"}},
		},
	}
	f.ensure(own)
	t.Cleanup(func() { require.NoError(t, client.IgnoreNotFound(f.Delete(context.Background(), own))) })
	list := filepath.Join(f.dir, "net.d", "10-dev.conflist")
	require.NoError(t, os.Remove(list))
	f.start()
	says := func(status corev1.ConditionStatus) string {
		var have *corev1.PodCondition
		eventually.True(f.t, fmt.Sprintf("the agent's pod says %s", status), func() bool {
			now := &corev1.Pod{}
			require.NoError(t, f.Get(context.Background(), client.ObjectKeyFromObject(own), now))
			have = conditions.OfPod(now, v1alpha1.PodConditionPluginInstalled)
			return have != nil && have.Status == status
		})
		return have.Message
	}
	message := says(corev1.ConditionFalse)
	require.Contains(t, message, "no CNI configuration yet")
	require.Contains(t, message, filepath.Join(f.dir, "net.d"))
	require.Contains(t, message, "spec.node.host")
	eventually.True(f.t, "an Event says so", func() bool {
		events := &eventsv1.EventList{}
		require.NoError(t, f.List(context.Background(), events, client.InNamespace(names.SystemNamespace)))
		for _, e := range events.Items {
			if e.Regarding.Name == f.podName && e.Reason == v1alpha1.PodReasonInstallFailed &&
				e.Type == corev1.EventTypeWarning {
				return true
			}
		}
		return false
	})
	require.NoError(t, os.WriteFile(list, []byte(originalCNI), 0o600))
	says(corev1.ConditionTrue)
}

// A label that nobody understands is said on the pod and by an Event.
func TestUnknownLabelIsSaid(t *testing.T) {
	f := setUp(t)
	p := f.pod("cart", "10.244.1.5", func(p *corev1.Pod) { p.Labels[names.LabelMTLSMode] = "on" })
	f.sandbox(t, string(p.UID), "ns-cart")
	f.start()
	require.Contains(t, f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured).Message, `the unknown value "on"`)
	eventually.True(f.t, "an Event says so", func() bool {
		events := &eventsv1.EventList{}
		require.NoError(t, f.List(context.Background(), events, client.InNamespace(f.namespace)))
		for _, e := range events.Items {
			if e.Regarding.Name == p.Name && e.Reason == v1alpha1.PodReasonUnknownLabel && e.Type == corev1.EventTypeWarning {
				return true
			}
		}
		return false
	})
	eventually.True(f.t, "strict", func() bool { return f.state(p).Mode == names.MTLSStrict })
}

// TestShareThatIsUsedUpIsSaid has a pod dial more addresses than it may, and then be given more.
func TestShareThatIsUsedUpIsSaid(t *testing.T) {
	f := setUp(t)
	give := func(most int32) {
		mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
		patch := fmt.Appendf(nil, `{"spec":{"node":{"addressesPerPod":%d}}}`, most)
		require.NoError(t, f.Patch(t.Context(), mesh, client.RawPatch(types.MergePatchType, patch)))
	}
	give(500)
	p := f.pod("scraper", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-scraper")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	share := func() uint32 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.share[path]
	}
	require.EqualValues(t, 500, share())
	f.do(func() { f.beyond[path] = capture.Refused{Share: 7} })
	note := f.warned(p, v1alpha1.PodReasonShareUsedUp)
	require.Contains(t, note, "more than 500 addresses")
	require.Contains(t, note, "7 connections")
	f.countedOnce("fairway_agent_share_refused_total", 7)

	give(600)
	eventually.True(f.t, "the pod may dial more", func() bool { return share() == 600 })
}

// warned waits for a Warning Event of a pod and is what it says.
func (f *fixture) warned(p *corev1.Pod, reason string) (note string) {
	f.t.Helper()
	eventually.True(f.t, "an Event says so", func() bool {
		events := &eventsv1.EventList{}
		require.NoError(f.t, f.List(context.Background(), events, client.InNamespace(f.namespace)))
		for _, e := range events.Items {
			if e.Regarding.UID == p.UID && e.Reason == reason && e.Type == corev1.EventTypeWarning {
				note = e.Note
				return true
			}
		}
		return false
	})
	return note
}

func (f *fixture) countedOnce(counter string, want float64) {
	f.t.Helper()
	families, err := f.metrics.Gather()
	require.NoError(f.t, err)
	i := slices.IndexFunc(families, func(m *dto.MetricFamily) bool { return m.GetName() == counter })
	require.GreaterOrEqual(f.t, i, 0, counter)
	require.InDelta(f.t, want, families[i].GetMetric()[0].GetCounter().GetValue(), 0,
		"counted once, however often it is looked at")
}

// TestRefusedPeersAreSaid has a caller with more connections to a pod than one may have, and then callers that may have
// more.
func TestRefusedPeersAreSaid(t *testing.T) {
	f := setUp(t)
	p := f.pod("server", "10.244.1.5")
	path := f.sandbox(t, string(p.UID), "ns-server")
	f.start()
	f.condition(p, corev1.ConditionTrue, v1alpha1.PodReasonCaptured)
	peers := func() uint32 {
		f.mu.Lock()
		defer f.mu.Unlock()
		return f.peers[path]
	}
	require.EqualValues(t, v1alpha1.DefaultConnectionsPerPeer, peers())
	f.do(func() { f.beyond[path] = capture.Refused{Peers: 7} })
	require.Contains(t, f.warned(p, v1alpha1.PodReasonPeerRefused),
		"7 connections to the pod were refused, because their caller already had 2048 open")
	f.countedOnce("fairway_agent_peer_refused_total", 7)

	mesh := &v1alpha1.Mesh{ObjectMeta: metav1.ObjectMeta{Name: names.Mesh}}
	patch := []byte(`{"spec":{"node":{"connectionsPerPeer":4000}}}`)
	require.NoError(t, f.Patch(t.Context(), mesh, client.RawPatch(types.MergePatchType, patch)))
	eventually.True(f.t, "a caller may have more", func() bool { return peers() == 4000 })
}
