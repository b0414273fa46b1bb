// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package kernel

import (
	"context"
	"errors"
	"net"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

// besides listens where others may, too, as a proxy's listeners do.
func besides(t *testing.T, ns *netns.Namespace) (l net.Listener) {
	t.Helper()
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) (err error) {
		return errors.Join(c.Control(func(fd uintptr) {
			err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
		}), err)
	}}
	require.NoError(t, ns.Do(func() (err error) {
		l, err = config.Listen(context.Background(), "tcp", "127.0.0.1:15001")
		return err
	}))
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// What waits in the queue of a listener that closes goes to another of its port, if the switch says so.
func TestMigrateQueues(t *testing.T) {
	ns := netnstest.New(t, "pod")
	for _, c := range []struct {
		to, was string
		lives   bool
	}{{"0", "0", false}, {"1", "0", true}, {"0", "1", false}} {
		was, err := new(Kernel).MigrateQueues(ns.Path(), c.to)
		require.NoError(t, err)
		require.Equal(t, c.was, was)
		former := besides(t, ns)
		var waits net.Conn
		require.NoError(t, ns.Do(func() (err error) { waits, err = net.Dial("tcp", former.Addr().String()); return err }))
		require.NoError(t, waits.SetDeadline(time.Now().Add(10*time.Second)))
		next := besides(t, ns)
		require.NoError(t, former.Close())
		if c.lives {
			taken, err := next.Accept()
			require.NoError(t, err)
			_, err = taken.Write([]byte("x"))
			require.NoError(t, err)
			require.NoError(t, taken.Close())
		}
		_, err = waits.Read(make([]byte, 1))
		require.Equal(t, c.lives, err == nil, "%v", err)
		require.NoError(t, waits.Close())
		require.NoError(t, next.Close())
	}
}
