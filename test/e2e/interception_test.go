// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"testing"

	"github.com/stretchr/testify/require"
	batchv1 "k8s.io/api/batch/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

func TestRunningPodsJoinAndLeaveWithoutARestart(t *testing.T) {
	t.Parallel()
	s := newSpace(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.answers("client", "http://server/", "server")
	before := s.pod("server")

	s.label(names.LabelMesh, names.MeshEnabled)
	s.captured("client", "server")
	start := since()
	got := s.answers("client", "http://server/", "server")
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	require.Equal(t, s.pod("client").Status.PodIP, got.from(), "the server sees the client's own address")

	s.label(names.LabelMesh, "")
	s.captureIs(corev1.ConditionFalse, "client", "server")
	s.answers("client", "http://server/", "server")

	after := s.pod("server")
	require.Equal(t, before.UID, after.UID)
	require.Zero(t, after.Status.ContainerStatuses[0].RestartCount)
}

// The server refuses plaintext, so each of these requests, which are the first thing that their pods do (in an init
// container), was captured.
func TestTheFirstPacketOfANewPodIsCaptured(t *testing.T) {
	t.Parallel()
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.server("server")
	s.service("server", "server")
	s.captured("server")
	never, pods := int32(0), int32(6)
	ask := corev1.Container{
		Name: "tool", Image: toolImage, ImagePullPolicy: corev1.PullIfNotPresent,
		// By name: DNS goes by UDP and is not the mesh's business, but must work from the first moment.
		Args: []string{"get", "--timeout=5s", "http://server/"},
	}
	first := ask
	first.Name = "first"
	job := &batchv1.Job{
		ObjectMeta: metav1.ObjectMeta{Name: "first"},
		Spec: batchv1.JobSpec{
			Completions: &pods, Parallelism: &pods, BackoffLimit: &never,
			Template: corev1.PodTemplateSpec{Spec: corev1.PodSpec{
				RestartPolicy:  corev1.RestartPolicyNever,
				InitContainers: []corev1.Container{first},
				Containers:     []corev1.Container{ask},
			}},
		},
	}
	s.create(job)
	eventually.Passes(t, "all pods of the Job succeed", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(job), job))
		require.Zero(look, job.Status.Failed)
		require.Equal(look, pods, job.Status.Succeeded)
	})
}

func TestAPodOptsOut(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("outsider", podLabel(names.LabelMesh, names.MeshDisabled))
	s.client("member")
	s.server("open")
	s.server("closed", podLabel(names.LabelMTLSMode, names.MTLSStrict))
	s.service("open", "open")
	s.service("closed", "closed")
	s.service("outsider", "outsider")
	s.captured("member", "open", "closed")

	start := since()
	s.answers("outsider", "http://open/", "open")
	logged(s, start, s.pod("open"), map[string]string{"direction": "inbound-plaintext"})
	s.answers("member", "http://closed/", "closed")
	s.answers("member", "http://outsider/", "outsider")
	s.refuses("outsider", "http://closed/") // a strict pod refuses plaintext
	outsider := s.pod("outsider")
	status, reason := captureOf(&outsider)
	require.Equal(t, corev1.ConditionFalse, status, reason)
}

func TestHostNetworkPods(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.server("host", onHostNetwork(18099))
	s.server("member")
	s.service("host", "host")
	s.service("member", "member")
	s.captured("member")
	s.answers("host", "http://"+s.host("member")+"/", "member")
	s.answers("member", "http://host/", "host")
	s.answers("member", fmt.Sprintf("http://%s:18099/", s.pod("host").Status.HostIP), "host")
}

func TestTrafficWithTheWorldOutside(t *testing.T) {
	t.Parallel()
	inside, outside := enrolled(t), newSpace(t)
	inside.server("member")
	inside.service("member", "member")
	outside.server("stranger")
	outside.service("stranger", "stranger")
	inside.captured("member")

	got := inside.answers("member", "http://"+outside.host("stranger")+"/", "stranger")
	require.Equal(t, inside.pod("member").Status.PodIP, got.from(),
		"a server outside the mesh sees the client's own address")
	got = outside.answers("stranger", "http://"+inside.host("member")+"/", "member")
	require.Equal(t, outside.pod("stranger").Status.PodIP, got.from(),
		"a member sees the address of a client outside the mesh")

	// TLS of applications is not touched: the API server's certificate is not of a root that the tool trusts.
	_, err := inside.get("member", "https://kubernetes.default.svc/healthz")
	require.ErrorContains(t, err, "x509")
	// Nor is what is refused: nothing listens there.
	inside.refuses("member", fmt.Sprintf("http://%s:9/", outside.pod("stranger").Status.PodIP))
}

func TestServersOfOtherProtocols(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	s.client("client")
	s.tcpServer("server")
	s.captured("client", "server")
	eventually.Passes(t, "an echo over TCP", func(look require.TestingT) {
		out, err := s.exec(t.Context(), "client", "tcp-send", "-n", "3", "server:80", "hello")
		require.NoError(look, err)
		require.Contains(look, out, "hello")
	})
	start := since()
	_, err := s.exec(t.Context(), "client", "tcp-send", "server:80", "hello")
	require.NoError(t, err)
	overMTLS(s, start, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	// HTTP/2 without TLS passes, too.
	s.server("h2")
	s.service("h2", "h2")
	s.captured("h2")
	require.Equal(t, http.StatusOK, s.answers("client", "http://h2/", "h2", "--http2").Status)
}
