// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// conversation is a connection on which a client says something ten times a second.
type conversation struct {
	ended chan error

	mu   sync.Mutex
	said bytes.Buffer
}

func (c *conversation) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.said.Write(b)
}

// answers so far.
func (c *conversation) answers() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Count(c.said.Bytes(), []byte("\n"))
}

// goesOn waits for more answers.
func (c *conversation) goesOn(t *testing.T) {
	t.Helper()
	before := c.answers()
	eventually.Passes(t, "more answers on a connection", func(look require.TestingT) {
		require.Greater(look, c.answers(), before+3)
	})
}

// ends waits for the end of who is refused.
func (c *conversation) ends(t *testing.T, who string) {
	t.Helper()
	select {
	case err := <-c.ended:
		require.Error(t, err, who)
	case <-time.After(10 * time.Second): // a second, if the machine has time
		require.Fail(t, "a connection that the policy refuses is open", who)
	}
}

// inForce makes a policy of the matrix, and waits until its status says that it is enforced, or tried.
func (s *space) inForce(name string) {
	s.t.Helper()
	policy := policyFor(name)
	s.create(policy)
	s.decided(policy)
}

func (s *space) converse(from, to string) *conversation {
	s.t.Helper()
	c := &conversation{ended: make(chan error, 1)}
	p := s.pod(from)
	go func() {
		c.ended <- execTo(s.t.Context(), &p, c, "tcp-send", "-n", "100000", "--interval", "100ms", to, "hello")
	}()
	c.goesOn(s.t)
	return c
}

// TestWhatIsOpenEndsWhenAPolicyNarrows: in mTLS and in plain text, once the policy's status says that it is enforced; a
// connection that the policy allows goes on.
func TestWhatIsOpenEndsWhenAPolicyNarrows(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	for _, name := range []string{"friend", "stranger"} {
		s.client(name)
	}
	s.client("outsider", podLabel(names.LabelMesh, names.MeshDisabled))
	s.tcpServer("app")
	s.captured("friend", "stranger", "app")
	friend, stranger, outsider := s.converse("friend", "app:80"), s.converse("stranger", "app:80"),
		s.converse("outsider", "app:80")

	s.inForce(dryRun)
	for _, c := range []*conversation{friend, stranger, outsider} {
		c.goesOn(t)
	}
	s.inForce(networkAllow)
	stranger.ends(t, "stranger")
	outsider.ends(t, "outsider")
	friend.goesOn(t)
}

// TestWhatIsOpenEndsAtAWaypoint: a connection of TCP that the waypoint passes on ends as well, by the agent of its
// node, once the policy's status says that it is enforced.
func TestWhatIsOpenEndsAtAWaypoint(t *testing.T) {
	t.Parallel()
	s := enrolled(t)
	for _, name := range []string{"friend", "stranger"} {
		s.client(name)
	}
	s.gateway("mine")
	svc := s.tcpServer("app", func(svc *corev1.Service) {
		svc.Labels = map[string]string{names.LabelUseWaypoint: "mine"}
	})
	s.captured("friend", "stranger", "app")
	eventually.Passes(t, "the Service's waypoint", func(look require.TestingT) {
		require.NoError(look, world.client.Get(t.Context(), client.ObjectKeyFromObject(svc), svc))
		require.True(look, meta.IsStatusConditionTrue(svc.Status.Conditions, v1alpha1.ServiceConditionWaypointBound))
	})
	for _, name := range []string{"friend", "stranger"} {
		eventually.Passes(t, "an answer to "+name, func(look require.TestingT) {
			_, err := s.exec(t.Context(), name, "tcp-send", "app:80", "hello")
			require.NoError(look, err)
		})
	}
	friend, stranger := s.converse("friend", "app:80"), s.converse("stranger", "app:80")
	counted := func(look require.TestingT, name string) (n float64) {
		pods := &corev1.PodList{}
		require.NoError(look, world.client.List(t.Context(), pods, client.InNamespace(s.name),
			client.MatchingLabels{names.LabelGatewayName: "mine"}))
		for i := range pods.Items {
			for _, m := range families(t, look, &pods.Items[i], names.PortAgent)[name].GetMetric() {
				n += m.GetGauge().GetValue() + m.GetCounter().GetValue()
			}
		}
		return n
	}
	eventually.Passes(t, "the waypoint has both connections", func(look require.TestingT) {
		require.EqualValues(look, 2, counted(look, "fairway_agent_open_connections"))
	})
	s.inForce(networkAllow)
	stranger.ends(t, "stranger")
	friend.goesOn(t)
	eventually.Passes(t, "the waypoint's count", func(look require.TestingT) {
		require.EqualValues(look, 1, counted(look, "fairway_agent_connections_ended_total"))
	})
}
