// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package netns_test

import (
	"io/fs"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

// A parameter is set in the namespace and nowhere else, as from a container, where /proc/sys can't be written.
func TestSysctl(t *testing.T) {
	const name = "net/ipv4/tcp_migrate_req"
	ns, other := netnstest.New(t, "a"), netnstest.New(t, "b")
	for _, step := range []struct{ to, was string }{{"1", "0"}, {"1", "1"}, {"0", "1"}} {
		was, err := ns.Sysctl(name, step.to)
		require.NoError(t, err)
		require.Equal(t, step.was, was)
		var now []byte
		require.NoError(t, ns.Do(func() (err error) { now, err = os.ReadFile("/proc/sys/" + name); return err }))
		require.Equal(t, step.to, strings.TrimSpace(string(now)))
		was, err = other.Sysctl(name, "0")
		require.NoError(t, err)
		require.Equal(t, "0", was, "others are left alone")
	}
	_, err := ns.Sysctl("net/ipv4/no_such_parameter", "1")
	require.ErrorIs(t, err, fs.ErrNotExist)
}
