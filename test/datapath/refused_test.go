// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"errors"
	"io"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestWhatCantBeReached says what an application sees of it, as the user guide has it: the proxy accepts before it
// knows, so connecting succeeds, and then the connection ends without a byte.
func TestWhatCantBeReached(t *testing.T) {
	m := newMesh(t)
	client := m.nodes[0].newMember("client", false)
	outsider := m.nodes[0].newPod("outsider")
	server := m.nodes[1].newMember("server", false)
	strict := m.nodes[1].newMember("strict", true)
	strict.greet(8080)
	plain := m.nodes[1].newPod("plain")
	server.workload(8099)
	m.destination(model.Destination{Address: plain.at(8099), Kind: model.DestinationPassthrough})
	empty := addrPort("10.96.0.12:80")
	m.service("empty", empty, 8080)

	for name, c := range map[string]struct {
		from *pod
		to   string
		// attempts are made before it is given up, so that what a client says first lies unread.
		attempts bool
	}{
		"no Service":                {client, "10.96.0.99:80", false},
		"a Service without a pod":   {client, empty.String(), false},
		"a closed port":             {client, server.at(8099).String(), false},
		"a closed port, plain text": {client, plain.at(8099).String(), true},
		"plain text to a strict":    {outsider, strict.at(8080).String(), false},
	} {
		t.Run(name, func(t *testing.T) {
			for _, first := range []string{"", "a request"} {
				conn, err := c.from.dial(c.to)
				require.NoError(t, err, "it is refused at once: tell docs/user-guide.md and docs/troubleshooting.md")
				_, writing := io.WriteString(conn, first)
				n, err := conn.Read(make([]byte, 1))
				require.Zero(t, n)
				require.NoError(t, conn.Close())
				if c.attempts && first != "" {
					require.NoError(t, writing)
					require.ErrorIs(t, err, syscall.ECONNRESET)
					continue
				}
				require.True(t, errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET), "%v", err)
			}
		})
	}
	t.Run("soon, however many fail", func(t *testing.T) {
		const many, soon = 16, 2200 * time.Millisecond
		g := errgroup.Group{}
		for range many {
			g.Go(func() error {
				began := time.Now()
				conn, err := client.dial(plain.at(8099).String())
				if err != nil {
					return err
				}
				defer conn.Close()
				_, err = conn.Read(make([]byte, 1))
				assert.Less(t, time.Since(began), soon)
				if late := net.Error(nil); errors.As(err, &late) && late.Timeout() {
					return err
				}
				return nil
			})
		}
		require.NoError(t, g.Wait())
	})
}
