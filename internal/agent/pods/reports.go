// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/enrol"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Reports count what becomes of pods, and tell people by Events.
type Reports struct {
	events   events.EventRecorder
	failures *prometheus.CounterVec
	repairs  prometheus.Counter
	refused  prometheus.Counter
	peers    prometheus.Counter
	outbound prometheus.Counter
}

// NewReports makes Reports; r may be nil.
func NewReports(r prometheus.Registerer, recorder events.EventRecorder) *Reports {
	f := promauto.With(r)
	return &Reports{
		events: recorder,
		failures: f.NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_agent_capture_failures_total", Help: "Failed attempts to capture a pod, by cause.",
		}, []string{"cause"}),
		repairs: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_capture_repairs_total", Help: "Times that changed rules of a captured pod were restored.",
		}),
		refused: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_share_refused_total",
			Help: "Connections that were refused because their pod had used up its share of addresses.",
		}),
		peers: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_peer_refused_total",
			Help: "Connections to pods that were refused because their caller was at its limit.",
		}),
		outbound: f.NewCounter(prometheus.CounterOpts{
			Name: "fairway_agent_outbound_refused_total",
			Help: "Connections, and packets of other protocols, of closed pods to outside of the mesh that were refused.",
		}),
	}
}

// Failed counts an attempt to capture a pod that failed.
func (r *Reports) Failed(err error) { r.failures.WithLabelValues(enrol.CauseOf(err)).Inc() }

// Repaired implements enrol.Observer.
func (r *Reports) Repaired() { r.repairs.Inc() }

// Refused implements enrol.Observer. It counts connections that the kernel refused because of a pod's limits, and says
// so on the pod: metrics don't name pods.
func (r *Reports) Refused(t enrol.Target, fresh capture.Refused) {
	r.refused.Add(float64(fresh.Share))
	r.peers.Add(float64(fresh.Peers))
	r.outbound.Add(float64(fresh.Outbound))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{
		Namespace: t.Pod.Namespace, Name: t.Pod.Name,
		UID: types.UID(t.Pod.UID),
	}}
	if fresh.Share > 0 {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonShareUsedUp, "Capture",
			"The pod dialled more than %d addresses of the mesh within an hour, and %d connections to more of them were "+
				"refused. If it needs that many, set spec.node.addressesPerPod of the Mesh, or exclude the pod with label %s=%s.",
			t.Share, fresh.Share, names.LabelMesh, names.MeshDisabled)
	}
	if fresh.Peers > 0 {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonPeerRefused, "Capture",
			"%d connections to the pod were refused, because their caller already had %d open or opened more than %d in a "+
				"second. If a caller needs that many open, set spec.node.connectionsPerPeer of the Mesh.",
			fresh.Peers, t.Peers, capture.PeerPerSecond)
	}
	if fresh.Outbound > 0 {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonOutboundRefused, "Capture",
			"Outbound of the pod is closed, and %d connections or packets to addresses outside of the mesh's ranges were "+
				"refused. If it may send there, label it %s=%s, or lead it there by a Service.",
			fresh.Outbound, names.LabelOutbound, names.OutboundAllow)
	}
}
