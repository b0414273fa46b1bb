// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"net"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestListenRefusesOtherUsers(t *testing.T) {
	path := filepath.Join(shortDir(t), "run", "xds.sock")
	for range 2 { // the second replaces the socket that the first left
		lis, err := Listen(path, uint32(os.Getuid())+1)
		require.NoError(t, err)
		go func() { _, _ = lis.Accept() }()
		conn, err := net.Dial("unix", path)
		require.NoError(t, err)
		_, err = conn.Read(make([]byte, 1))
		require.Error(t, err, "closed at once")
		require.NoError(t, conn.Close())
		lis.(*peerListener).SetUnlinkOnClose(false)
		require.NoError(t, lis.Close())
	}
}
