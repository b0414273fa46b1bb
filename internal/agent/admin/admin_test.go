// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package admin

import (
	"context"
	"errors"
	"net"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestGone tells a process that died from one that has no time to answer.
func TestGone(t *testing.T) {
	socket := filepath.Join(t.TempDir(), "admin.sock")
	envoy := New(socket)
	t.Cleanup(envoy.Close)
	_, err := envoy.Connections(t.Context())
	require.True(t, Gone(err), "it has not begun: %v", err)

	l, err := net.Listen("unix", socket)
	require.NoError(t, err)
	l.(*net.UnixListener).SetUnlinkOnClose(false) // as a process that is killed leaves it
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	_, err = envoy.Connections(ctx)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	require.False(t, Gone(err), "it is busy: %v", err)

	require.NoError(t, l.Close())
	_, err = envoy.Connections(t.Context())
	require.True(t, Gone(err), "it died: %v", err)
	require.False(t, Gone(errors.New("the proxy answered 500")))
	require.False(t, Gone(nil))
}
