// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

type opened struct {
	net.Conn
	in *bufio.Reader
}

// open a connection from a namespace, from any address of it unless one is given.
func open(t *testing.T, ns *netns.Namespace, from, to string) opened {
	t.Helper()
	d := net.Dialer{}
	if from != "" {
		d.LocalAddr = net.TCPAddrFromAddrPort(netip.MustParseAddrPort(from))
	}
	return openBy(t, ns, d, to)
}

// openAsProxy opens one as the proxy does.
func openAsProxy(t *testing.T, ns *netns.Namespace, to string) opened {
	t.Helper()
	return openBy(t, ns, net.Dialer{Control: markAsProxy}, to)
}

// markAsProxy is for sockets that are as the proxy's.
func markAsProxy(_, _ string, c syscall.RawConn) (err error) {
	return errors.Join(c.Control(func(fd uintptr) {
		err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, int(testMark.Mark()))
	}), err)
}

func openBy(t *testing.T, ns *netns.Namespace, d net.Dialer, to string) opened {
	t.Helper()
	d.Timeout = 10 * time.Second
	var c net.Conn
	require.NoError(t, ns.Do(func() (err error) { c, err = d.Dial("tcp", to); return err }))
	t.Cleanup(func() { _ = c.Close() })
	o := opened{c, bufio.NewReader(c)}
	require.NoError(t, o.say())
	return o
}

func (o opened) say() error {
	if err := o.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(o, "x"); err != nil {
		return err
	}
	_, err := o.in.ReadString('\n')
	return err
}

// requireReset holds that connections were reset, which both ends hear of, and that others go on.
func requireReset(t *testing.T, ended, stay map[string]opened) {
	t.Helper()
	for name, c := range ended {
		err := c.say()
		require.Error(t, err, name)
		var late net.Error
		require.False(t, errors.As(err, &late) && late.Timeout(), "%s: reset, not silent", name)
	}
	for name, c := range stay {
		require.NoError(t, c.say(), name)
	}
}

// Only what others opened to the pod's applications ends, past the proxy, or through it in plaintext.
func TestEndPlaintext(t *testing.T) {
	pod, peer := netnstest.Linked(t,
		[]string{"10.244.0.1/24", "fd00:244::1/64"}, []string{"10.244.0.2/24", "fd00:244::2/64"})
	netnstest.Echo(t, pod, "10.244.0.1:8080")
	netnstest.Echo(t, pod, "[::]:9090")
	netnstest.Echo(t, pod, "[::]:15008")
	netnstest.Echo(t, peer, "[::]:7070")
	ended := map[string]opened{
		"IPv4":           open(t, peer, "", "10.244.0.1:8080"),
		"to any address": open(t, peer, "", "10.244.0.1:9090"),
		"IPv6":           open(t, peer, "", "[fd00:244::1]:9090"),
		"a port picked":  open(t, peer, "10.244.0.2:9090", "10.244.0.1:8080"),
		"by the proxy":   openAsProxy(t, pod, "127.77.0.1:9090"),
		"by the proxy 6": openAsProxy(t, pod, "[::1]:9090"),
	}
	stay := map[string]opened{
		"the pod's own":      open(t, pod, "", "10.244.0.2:7070"),
		"the pod's own IPv6": open(t, pod, "", "[fd00:244::2]:7070"),
		"within the pod":     open(t, pod, "", "10.244.0.1:8080"),
		"over loopback":      open(t, pod, "", "127.0.0.1:9090"),
		"mTLS":               open(t, peer, "", "10.244.0.1:15008"),
		"by the proxy, mTLS": openAsProxy(t, pod, "10.244.0.1:9090"),
		"as if by the proxy": open(t, pod, "", "127.77.0.1:9090"),
	}
	everywhere := func(uint16) bool { return true }
	n, err := EndPlaintext(pod, testMark, nil, func(port uint16) bool { return port == 7070 })
	require.NoError(t, err)
	require.Zero(t, n, "plaintext is taken at the ports of these")
	n, err = EndPlaintext(pod, testMark, nil, everywhere)
	require.NoError(t, err)
	require.Equal(t, len(ended), n)
	requireReset(t, ended, stay)
	n, err = EndPlaintext(pod, testMark, nil, everywhere)
	require.NoError(t, err)
	require.Zero(t, n, "a second time")
}

// TestEndMarked: what the proxy has opened and what it took ends, for the other end as well, and nothing else.
func TestEndMarked(t *testing.T) {
	pod, peer := netnstest.Linked(t, []string{"10.244.0.1/24"}, []string{"10.244.0.2/24"})
	netnstest.Echo(t, pod, "10.244.0.1:8080")
	netnstest.Echo(t, peer, "10.244.0.2:7070")
	var proxys net.Listener
	require.NoError(t, pod.Do(func() (err error) {
		proxys, err = (&net.ListenConfig{Control: markAsProxy}).Listen(t.Context(), "tcp", "10.244.0.1:15008")
		return err
	}))
	netnstest.ServeOn(t, proxys, func(c net.Conn) { _, _ = io.Copy(c, c) })
	none, err := Marked(pod, testMark)
	require.NoError(t, err)
	require.Zero(t, none, "a listener is none")
	ended := map[string]opened{
		"took":            open(t, peer, "", "10.244.0.1:15008"),
		"opened":          openAsProxy(t, pod, "10.244.0.2:7070"),
		"opened, to here": openAsProxy(t, pod, "10.244.0.1:8080"),
	}
	stay := map[string]opened{
		"the pod's own":  open(t, pod, "", "10.244.0.2:7070"),
		"past the proxy": open(t, peer, "", "10.244.0.1:8080"),
	}
	n, err := Marked(pod, testMark)
	require.NoError(t, err)
	require.Equal(t, len(ended), n)
	n, err = EndMarked(pod, testMark)
	require.NoError(t, err)
	require.Equal(t, len(ended), n)
	requireReset(t, ended, stay)
	n, err = Marked(pod, testMark)
	require.NoError(t, err)
	require.Zero(t, n)
}

// Connections that begin and end while sockets are listed are told from those past the proxy all the same.
func TestEndPlaintextWhileConnectionsComeAndGo(t *testing.T) {
	pod, _ := netnstest.Linked(t, []string{"10.244.0.1/24"}, []string{"10.244.0.2/24"})
	netnstest.Echo(t, pod, "10.244.0.1:9090")
	const callers = 4
	stop, failed := make(chan struct{}), make(chan error, callers)
	for range callers {
		go func() {
			for {
				select {
				case <-stop:
					failed <- nil
					return
				default:
				}
				if err := once(pod, "10.244.0.1:9090"); err != nil {
					failed <- err
					return
				}
			}
		}()
	}
	for range 50 {
		n, err := EndPlaintext(pod, testMark, nil, func(uint16) bool { return true })
		require.NoError(t, err)
		require.Zero(t, n)
	}
	close(stop)
	for range callers {
		require.NoError(t, <-failed)
	}
}

// once opens a connection from within a namespace, has a line sent back, and closes it.
func once(ns *netns.Namespace, to string) error {
	var c net.Conn
	if err := ns.Do(func() (err error) { c, err = net.Dial("tcp", to); return err }); err != nil {
		return err
	}
	defer func() { _ = c.Close() }()
	return opened{c, bufio.NewReader(c)}.say()
}
