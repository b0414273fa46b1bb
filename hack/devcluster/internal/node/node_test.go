// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"slices"
	"testing"
)

func TestParseHierarchies(t *testing.T) {
	const v1 = `sysfs /sys sysfs rw 0 0
tmpfs /sys/fs/cgroup tmpfs rw 0 0
cgroup /sys/fs/cgroup/cpu cgroup rw,cpu 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw 0 0
cgroup /elsewhere/cpu cgroup rw,cpu 0 0
`
	if got := parseHierarchies(v1); !slices.Equal(got, []string{"/sys/fs/cgroup/cpu", "/sys/fs/cgroup/unified"}) {
		t.Errorf("v1: got %v", got)
	}
	if got := parseHierarchies("cgroup2 /sys/fs/cgroup cgroup2 rw 0 0\n"); !slices.Equal(got, []string{"/sys/fs/cgroup"}) {
		t.Errorf("v2: got %v", got)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("https_proxy", "http://proxy.example")
	t.Setenv("KEPT", "yes")
	t.Setenv("PATH", "/old")
	got := environment("PATH=/new")
	if !slices.Contains(got, "KEPT=yes") || !slices.Contains(got, "PATH=/new") || slices.Contains(got, "PATH=/old") ||
		slices.Contains(got, "https_proxy=http://proxy.example") {
		t.Errorf("got %v", got)
	}
}
