// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestAClosedNamespace: its pods go on reaching all of the mesh, and the API server, by name. Nodes are outside.
func TestAClosedNamespace(t *testing.T) {
	t.Parallel()
	s, outside := enrolled(t), newSpace(t)
	outside.server("host", onHostNetwork(18_098))
	outside.server("stranger")
	outside.service("stranger", "stranger")
	s.client("client")
	s.client("open", podLabel(names.LabelOutbound, names.OutboundAllow))
	s.server("server")
	s.service("server", "server")
	s.captured("client", "open", "server")
	node := fmt.Sprintf("http://%s:18098/", outside.pod("host").Status.HostIP)
	s.answers("client", node, "host")

	s.label(names.LabelOutbound, names.OutboundDeny)
	s.refuses("client", node)
	s.answers("client", "http://server/", "server")
	s.answers("client", "http://"+outside.host("stranger")+"/", "stranger")
	_, err := s.get("client", "https://kubernetes.default.svc/healthz")
	require.ErrorContains(t, err, "x509", "it is the API server that answers")
	outside.answers("stranger", "http://"+s.host("server")+"/", "server")
	s.answers("open", node, "host")
	pod := s.pod("client")
	eventually.Passes(t, "the pod says so", func(look require.TestingT) {
		now := s.pod("client")
		_, message := captureOf(&now)
		require.Contains(look, message, "Outbound is closed")
		require.True(look, podReady(&now), "kubelet's probes are answered")
		list := &eventsv1.EventList{}
		require.NoError(look, world.client.List(t.Context(), list, client.InNamespace(s.name)))
		var reasons []string
		for _, e := range list.Items {
			if e.Regarding.Name == pod.Name {
				reasons = append(reasons, e.Reason)
			}
		}
		require.Contains(look, reasons, v1alpha1.PodReasonOutboundRefused)
	})

	// A Service is a way out for those who are closed.
	s.create(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Name: "way-out"},
		Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}},
	})
	s.create(&discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{
			Name: "way-out", Labels: map[string]string{discoveryv1.LabelServiceName: "way-out"},
		},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(18_098))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{outside.pod("host").Status.HostIP}}},
	})
	s.answers("client", "http://way-out/", "host")

	s.label(names.LabelOutbound, names.OutboundAllow)
	s.answers("client", node, "host")
}

// TestTheFirstPacketOfAClosedPod is refused, also in an init container.
func TestTheFirstPacketOfAClosedPod(t *testing.T) {
	t.Parallel()
	s, outside := enrolled(t, names.LabelOutbound, names.OutboundDeny), newSpace(t)
	outside.server("host", onHostNetwork(18_097))
	never := int32(0)
	ask := corev1.Container{
		Name: "tool", Image: toolImage, ImagePullPolicy: corev1.PullIfNotPresent,
		Args: []string{"get", "--timeout=5s", fmt.Sprintf("http://%s:18097/", outside.pod("host").Status.HostIP)},
	}
	first := ask
	first.Name = "first"
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "first"},
		Spec: batchv1.JobSpec{BackoffLimit: &never, Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
			RestartPolicy:  corev1.RestartPolicyNever,
			InitContainers: []corev1.Container{first}, Containers: []corev1.Container{ask},
		}}},
	}
	s.create(job)
	eventually.Passes(t, "the Job fails", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(job), job))
		require.Zero(look, job.Status.Succeeded)
		require.EqualValues(look, 1, job.Status.Failed)
	})
	pods := &corev1.PodList{}
	require.NoError(t, world.client.List(t.Context(), pods, client.InNamespace(s.name)))
	require.Len(t, pods.Items, 1)
	require.NotZero(t, pods.Items[0].Status.InitContainerStatuses[0].State.Terminated.ExitCode)
}
