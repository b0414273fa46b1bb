// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

// twoPods are two namespaces that reach each other at 10.244.0.1 and 10.244.0.2.
func twoPods(t *testing.T) (a, b *netns.Namespace) {
	t.Helper()
	return netnstest.Linked(t, []string{"10.244.0.1/24"}, []string{"10.244.0.2/24"})
}

func dial(t *testing.T, ns *netns.Namespace, addr string) *bufio.ReadWriter {
	t.Helper()
	var conn net.Conn
	require.NoError(t, ns.Do(func() (err error) { conn, err = net.Dial("tcp", addr); return err }))
	t.Cleanup(func() { _ = conn.Close() })
	return bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
}

func say(t *testing.T, c *bufio.ReadWriter, line string) {
	t.Helper()
	_, err := fmt.Fprintln(c, line)
	require.NoError(t, err)
	require.NoError(t, c.Flush())
	got, err := c.ReadString('\n')
	require.NoError(t, err)
	require.Equal(t, line+"\n", got)
}

// Connections that are open when a pod is captured go on as they are, in both directions, and through its release.
func TestOpenConnectionsSurviveCapture(t *testing.T) {
	pod, peer := twoPods(t)
	netnstest.Echo(t, pod, "10.244.0.1:80")
	netnstest.Echo(t, peer, "10.244.0.2:80")
	in, out := dial(t, peer, "10.244.0.1:80"), dial(t, pod, "10.244.0.2:80")
	say(t, in, "in before")
	say(t, out, "out before")

	k, err := New(proxymark.From(1, 2), nil)
	require.NoError(t, err)
	p := capture.Pod{Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	require.NoError(t, k.Apply(pod.Path(), p))
	say(t, in, "in captured")
	say(t, out, "out captured")
	require.NoError(t, k.Drain(pod.Path()))
	say(t, in, "in drained")
	say(t, out, "out drained")
	require.NoError(t, k.Remove(pod.Path()))
	say(t, in, "in removed")
	say(t, out, "out removed")
}

func TestKernelTellsWhatIsThere(t *testing.T) {
	pod, _ := twoPods(t)
	k, err := New(proxymark.From(1, 2), nil)
	require.NoError(t, err)
	p := capture.Pod{Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}}
	has, err := k.Has(pod.Path())
	require.NoError(t, err)
	require.False(t, has)
	require.NoError(t, k.Apply(pod.Path(), p))
	has, err = k.Has(pod.Path())
	require.NoError(t, err)
	require.True(t, has)
	drift, err := k.Verify(pod.Path(), p)
	require.NoError(t, err)
	require.Empty(t, drift)
	p.Ranges = append(p.Ranges, netip.MustParsePrefix("10.96.0.0/16"))
	require.NoError(t, k.UpdateSets(pod.Path(), p))
	drift, err = k.Verify(pod.Path(), p)
	require.NoError(t, err)
	require.Empty(t, drift)

	netnstest.Echo(t, pod, ":15001")
	open, err := k.Listening(pod.Path(), 15001, 15006)
	require.NoError(t, err)
	require.Equal(t, map[uint16]bool{15001: true, 15006: false}, open)

	_, err = k.Has(pod.Path() + "-gone")
	require.True(t, netns.Gone(err))
}

// TestKernelWithoutLimitsOfPeers captures pods all the same.
func TestKernelWithoutLimitsOfPeers(t *testing.T) {
	pod, _ := twoPods(t)
	k, err := New(proxymark.From(1, 2), nil)
	require.NoError(t, err)
	require.NoError(t, k.CanLimitPeers(), "this one can")
	p := capture.Pod{Ranges: []netip.Prefix{netip.MustParsePrefix("10.244.0.0/16")}, Peers: 2048}
	require.NoError(t, k.Apply(pod.Path(), p))

	k.noPeers = errors.New("no such expression")
	require.NoError(t, k.Apply(pod.Path(), p))
	refused, err := k.Refused(pod.Path())
	require.NoError(t, err)
	require.Zero(t, refused)
	drift, err := k.Verify(pod.Path(), p)
	require.NoError(t, err)
	require.Empty(t, drift)
	k.noPeers = nil
	drift, err = k.Verify(pod.Path(), p)
	require.NoError(t, err)
	require.Contains(t, drift, "set peers4 is missing")
}

// TestKernelClosesPods: what a closed pod has open to outside ends, but for its resolvers.
func TestKernelClosesPods(t *testing.T) {
	pod, peer := twoPods(t)
	k, err := New(proxymark.From(1, 2), []netip.Addr{netip.MustParseAddr("10.244.0.2")})
	require.NoError(t, err)
	netnstest.Echo(t, peer, "10.244.0.2:80")
	netnstest.Echo(t, peer, "10.244.0.2:53")
	outside, resolver := dial(t, pod, "10.244.0.2:80"), dial(t, pod, "10.244.0.2:53")
	p := capture.Pod{Ranges: []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")}, Closed: true}
	require.NoError(t, k.Apply(pod.Path(), p))
	ended, err := k.EndOutbound(pod.Path(), p)
	require.NoError(t, err)
	require.Equal(t, 1, ended)
	_, err = outside.Read(make([]byte, 1))
	require.Error(t, err)
	say(t, resolver, "which address")
	drift, err := k.Verify(pod.Path(), p)
	require.NoError(t, err)
	require.Empty(t, drift)
}
