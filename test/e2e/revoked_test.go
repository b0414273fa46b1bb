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
	for _, client := range []string{"friend", "stranger"} {
		s.client(client)
	}
	s.client("outsider", podLabel(names.LabelMesh, names.MeshDisabled))
	s.server("app", func(d *deployment) {
		d.Spec.Template.Spec.Containers[0].Args = []string{"tcp-serve", "--name=app", "--port=8080"}
		d.Spec.Template.Spec.Containers[0].ReadinessProbe.ProbeHandler = tcpProbe("http")
	})
	s.service("app", "app", func(svc *corev1.Service) {
		svc.Spec.Ports[0].AppProtocol, svc.Spec.Ports[0].Name = nil, "tcp"
	})
	s.captured("friend", "stranger", "app")
	friend, stranger, outsider := s.converse("friend", "app:80"), s.converse("stranger", "app:80"),
		s.converse("outsider", "app:80")

	tried := policyFor(dryRun)
	tried.Namespace = s.name
	s.create(tried)
	s.decided(tried)
	for _, c := range []*conversation{friend, stranger, outsider} {
		c.goesOn(t)
	}
	policy := policyFor(networkAllow)
	policy.Namespace = s.name
	s.create(policy)
	s.decided(policy)
	for name, c := range map[string]*conversation{"stranger": stranger, "outsider": outsider} {
		select {
		case err := <-c.ended:
			require.Error(t, err, name)
		case <-time.After(10 * time.Second): // a second, if the machine has time
			require.Fail(t, "a connection that the policy refuses is open", name)
		}
	}
	friend.goesOn(t)
}
