// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

// envCgroup has a process of this test join a cgroup and say what bounds it.
const envCgroup = "FAIRWAY_TEST_CGROUP"

// bounds of a process.
type bounds struct {
	Limit   int64
	Percent int
}

// TestMemoryIsBoundedByTheContainers, unless the user has set something else.
func TestMemoryIsBoundedByTheContainers(t *testing.T) {
	if dir := os.Getenv(envCgroup); dir != "" {
		tellBounds(t, dir)
		return
	}
	netnstest.NeedRoot(t)
	const limit = 512 << 20
	dir := newCgroup(t, limit)
	for _, c := range []struct {
		name string
		env  []string
		want bounds
	}{
		{"nothing set", nil, bounds{limit / 10 * 9, gcPercent}},
		{"GOMEMLIMIT", []string{"GOMEMLIMIT=100MiB"}, bounds{100 << 20, gcPercent}},
		{"GOGC", []string{"GOGC=80"}, bounds{limit / 10 * 9, 80}},
	} {
		t.Run(c.name, func(t *testing.T) {
			out := filepath.Join(t.TempDir(), "bounds.json")
			cmd := exec.CommandContext(t.Context(), "/proc/self/exe", "-test.run=^TestMemoryIsBoundedByTheContainers$")
			cmd.Env = append(c.env, envCgroup+"="+dir, envCgroup+"_OUT="+out)
			text, err := cmd.CombinedOutput()
			require.NoError(t, err, string(text))
			text, err = os.ReadFile(out)
			require.NoError(t, err)
			var got bounds
			require.NoError(t, json.Unmarshal(text, &got))
			require.InDelta(t, c.want.Limit, got.Limit, 4096)
			require.Equal(t, c.want.Percent, got.Percent)
		})
	}
}

func tellBounds(t *testing.T, cgroup string) {
	t.Helper()
	join := filepath.Join(cgroup, "cgroup.procs")
	require.NoError(t, os.WriteFile(join, []byte(strconv.Itoa(os.Getpid())), 0o600))
	boundMemory(testr.New(t))
	text, err := json.Marshal(bounds{debug.SetMemoryLimit(-1), debug.SetGCPercent(-1)})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(os.Getenv(envCgroup+"_OUT"), text, 0o600))
}

// newCgroup makes one whose processes may have so much memory, as container runtimes do.
func newCgroup(t *testing.T, limit int) string {
	t.Helper()
	root, file := "/sys/fs/cgroup", "memory.max"
	if _, err := os.Stat(filepath.Join(root, "memory")); err == nil { // the first version of cgroups
		root, file = filepath.Join(root, "memory"), "memory.limit_in_bytes"
	} else if enabled, err := os.ReadFile(filepath.Join(root, "cgroup.subtree_control")); err != nil ||
		!strings.Contains(string(enabled), "memory") {
		t.Skip("cgroups below the root have no limits of memory here")
	}
	dir := filepath.Join(root, fmt.Sprint("fairway-test-", os.Getpid()))
	require.NoError(t, os.Mkdir(dir, 0o755))
	t.Cleanup(func() { require.NoError(t, os.Remove(dir)) })
	require.NoError(t, os.WriteFile(filepath.Join(dir, file), []byte(strconv.Itoa(limit)), 0o600))
	return dir
}
