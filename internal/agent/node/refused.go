// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/names"
)

// noteRefused counts connections that the kernel refused because of a pod's limits, and says so on the pod: metrics don't
// name pods.
func (r *reconciler) noteRefused(t Target, fresh capture.Refused) {
	r.metrics.refused.Add(float64(fresh.Share))
	r.metrics.peers.Add(float64(fresh.Peers))
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Namespace: t.Pod.Namespace, Name: t.Pod.Name, UID: types.UID(t.Pod.UID)}}
	if fresh.Share > 0 {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonShareUsedUp, "Capture",
			"The pod dialled more than %d addresses of the mesh within an hour, and %d connections to more of them were refused. "+
				"If it needs that many, set spec.node.addressesPerPod of the Mesh, or leave the pod out by its label %s=%s.",
			t.Share, fresh.Share, names.LabelMesh, names.MeshDisabled)
	}
	if fresh.Peers > 0 {
		r.events.Eventf(pod, nil, corev1.EventTypeWarning, v1alpha1.PodReasonPeerRefused, "Capture",
			"%d connections to the pod were refused, because their caller had %d open already or began more than %d in a second. "+
				"If a caller needs that many open, set spec.node.connectionsPerPeer of the Mesh.",
			fresh.Peers, t.Peers, capture.PeerPerSecond)
	}
}
