// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package buildinfo

import (
	"os/exec"
	"runtime/debug"
	"testing"

	"github.com/stretchr/testify/require"
)

// The commit is in what "make build" builds, and shown.
func TestCommit(t *testing.T) {
	info := &debug.BuildInfo{Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}, {
		Key: "vcs.modified", Value: "false",
	}}}
	require.Equal(t, "abc", commitOf(info))
	info.Settings[1].Value = "true"
	require.Equal(t, "abc-dirty", commitOf(info))
	require.Empty(t, commitOf(&debug.BuildInfo{}))

	out, err := exec.CommandContext(t.Context(), "make", "-n", "-C", "../..", "build").Output()
	require.NoError(t, err)
	require.Contains(t, string(out), "go build -buildvcs=auto")
}
