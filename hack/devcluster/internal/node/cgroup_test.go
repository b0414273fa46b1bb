// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
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

// version2Root makes a cgroup of version 2 that stands for a machine's root, and has controllers of those that kubelet
// wants but doesn't pass them on.
func version2Root(t *testing.T) (*cgroups, []string) {
	t.Helper()
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range parseHierarchies(string(mounts)) {
		if !version2(h) {
			continue
		}
		machine := &cgroups{roots: []string{h}, record: filepath.Join(t.TempDir(), "machine")}
		if err := machine.passOn(h); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if err := machine.restore(); err != nil {
				t.Error(err)
			}
		})
		root := filepath.Join(h, fmt.Sprintf("fairway-test-%d", os.Getpid()))
		if err := os.Mkdir(root, 0o755); err != nil {
			t.Skipf("skipped: no cgroup can be made (root): %v", err)
		}
		t.Cleanup(func() {
			if err := removeTree(root); err != nil {
				t.Error(err)
			}
		})
		have, err := words(filepath.Join(root, controllersFile))
		if err != nil {
			t.Fatal(err)
		}
		have = slices.DeleteFunc(have, func(c string) bool { return !slices.Contains(kubeletControllers, c) })
		if len(have) > 0 {
			return &cgroups{roots: []string{root}, record: filepath.Join(t.TempDir(), "controllers")}, have
		}
	}
	t.Skip("skipped: this machine passes no controller of cgroup version 2 on")
	return nil, nil
}

func passedOn(t *testing.T, dir string) []string {
	t.Helper()
	got, err := words(filepath.Join(dir, subtreeFile))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestVersion2PassesControllersOnAndTakesThemBack(t *testing.T) {
	c, controllers := version2Root(t)
	for range 2 { // a second time changes nothing
		for _, n := range topology.Nodes {
			if err := c.make(n); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, name := range controllers {
		for _, n := range topology.Nodes {
			if dir := filepath.Join(c.roots[0], n.CgroupRoot()); !slices.Contains(passedOn(t, dir), name) {
				t.Errorf("%s doesn't pass %s on", dir, name)
			}
		}
		if err := control(c.roots[0], "-"+name); err == nil {
			t.Errorf("%s could be taken from the nodes", name)
		}
	}
	for _, n := range topology.Nodes {
		if err := c.remove(n); err != nil {
			t.Fatal(err)
		}
	}
	if err := c.restore(); err != nil {
		t.Fatal(err)
	}
	if got := passedOn(t, c.roots[0]); len(got) > 0 {
		t.Errorf("the root still passes on %v", got)
	}
	if _, err := os.Stat(c.record); err == nil {
		t.Error("the record is still there")
	}
	if err := c.restore(); err != nil {
		t.Errorf("a second time: %v", err)
	}
}

// A cgroup with processes in it passes nothing on, unless it is the machine's root: as in a container.
func TestVersion2ThatCannotPassControllersOn(t *testing.T) {
	c, controllers := version2Root(t)
	fd, err := unix.Open(c.roots[0], unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	process := exec.CommandContext(t.Context(), "sleep", "1000")
	process.SysProcAttr = &unix.SysProcAttr{UseCgroupFD: true, CgroupFD: fd}
	if err := process.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		_ = process.Process.Kill()
		_ = process.Wait()
	}()
	err = c.make(topology.Nodes[0])
	if err == nil || !strings.Contains(err.Error(), controllers[0]) || !strings.Contains(err.Error(), c.roots[0]) {
		t.Errorf("got %v", err)
	}
}
