// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

func TestOpen(t *testing.T) {
	_, err := netns.Open(filepath.Join(t.TempDir(), "gone"))
	require.ErrorIs(t, err, fs.ErrNotExist)
	stale := filepath.Join(t.TempDir(), "stale")
	require.NoError(t, os.WriteFile(stale, nil, 0o600))
	_, err = netns.Open(stale)
	require.ErrorIs(t, err, netns.ErrNotNamespace, "as a reboot leaves it")
	_, err = netns.Open("/proc/self/ns/mnt")
	require.ErrorIs(t, err, netns.ErrNotNamespace, "another kind of namespace")
}

func TestDo(t *testing.T) {
	a, b := netnstest.New(t, "a"), netnstest.New(t, "b")
	netnstest.Link(t, a, "x", b, "y")
	for ns, want := range map[*netns.Namespace]string{a: "x", b: "y"} {
		require.NoError(t, ns.Do(func() error {
			_, err := netlink.LinkByName(want)
			return err
		}))
	}
	_, err := netlink.LinkByName("x")
	require.Error(t, err, "the test itself stays outside")
	require.ErrorIs(t, a.Do(func() error { return fs.ErrInvalid }), fs.ErrInvalid)
}

func TestListening(t *testing.T) {
	ns := netnstest.New(t, "a")
	have, err := ns.Listening(80, 81, 82)
	require.NoError(t, err)
	require.Equal(t, map[uint16]bool{80: false, 81: false, 82: false}, have)
	for _, addr := range []string{"127.0.0.1:80", "[::]:81"} {
		require.NoError(t, ns.Do(func() error {
			l, err := net.Listen("tcp", addr)
			if err == nil {
				t.Cleanup(func() { _ = l.Close() })
			}
			return err
		}))
	}
	require.NoError(t, ns.Do(func() error {
		c, err := net.Dial("tcp", "127.0.0.1:80") // a connection is no listener
		if err == nil {
			t.Cleanup(func() { _ = c.Close() })
		}
		return err
	}))
	have, err = ns.Listening(80, 81, 82)
	require.NoError(t, err)
	require.Equal(t, map[uint16]bool{80: true, 81: true, 82: false}, have)
}
