// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

const cgroupMount = "/sys/fs/cgroup"

// hierarchies returns the mount points of all cgroup hierarchies (one on cgroup v2, several on v1).
func hierarchies() ([]string, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	return parseHierarchies(string(mounts)), nil
}

func parseHierarchies(mounts string) []string {
	var out []string
	for _, line := range strings.Split(mounts, "\n") {
		f := strings.Fields(line) // device, mount point, type, options
		if len(f) > 2 && (f[2] == "cgroup" || f[2] == "cgroup2") && strings.HasPrefix(f[1], cgroupMount) {
			out = append(out, f[1])
		}
	}
	return out
}

// makeCgroups makes the node's cgroup in every hierarchy: kubelet wants its cgroupRoot to exist.
func makeCgroups(n topology.Node) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	if len(all) == 0 {
		return fmt.Errorf("no cgroup hierarchy is mounted at %s", cgroupMount)
	}
	for _, h := range all {
		if err := enableControllers(h); err != nil {
			return err
		}
		dir := filepath.Join(h, n.CgroupRoot())
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the node's cgroup: %w", err)
		}
		// A new cpuset of cgroup v1 is empty, and no process may join an empty one.
		for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
			if v, err := os.ReadFile(filepath.Join(h, f)); err == nil {
				if err := os.WriteFile(filepath.Join(dir, f), v, 0o644); err != nil {
					return fmt.Errorf("making the node's cpuset: %w", err)
				}
			}
		}
	}
	return nil
}

// enableControllers passes the controllers of a cgroup v2 root on to its children. Each by itself: one that the kernel
// can't pass on must not keep the others.
func enableControllers(hierarchy string) error {
	controllers, err := os.ReadFile(filepath.Join(hierarchy, "cgroup.controllers"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil // cgroup v1
	}
	if err != nil {
		return err
	}
	for _, c := range strings.Fields(string(controllers)) {
		_ = os.WriteFile(filepath.Join(hierarchy, "cgroup.subtree_control"), []byte("+"+c), 0o644)
	}
	return nil
}

// removeCgroups removes the node's cgroups once its processes are gone.
func removeCgroups(n topology.Node) error {
	all, err := hierarchies()
	if err != nil {
		return err
	}
	var errs []error
	for _, h := range all {
		errs = append(errs, removeTree(filepath.Join(h, n.CgroupRoot())))
	}
	return errors.Join(errs...)
}

// removeTree removes a cgroup and its descendants, deepest first. The kernel may hold a cgroup for a moment after its
// last process has gone.
func removeTree(dir string) error {
	deadline := time.Now().Add(5 * time.Second)
	for {
		var dirs []string
		_ = filepath.WalkDir(dir, func(p string, d fs.DirEntry, err error) error {
			if err == nil && d.IsDir() {
				dirs = append(dirs, p)
			}
			return nil
		})
		if len(dirs) == 0 {
			return nil
		}
		var last error
		for i := len(dirs) - 1; i >= 0; i-- {
			if err := os.Remove(dirs[i]); err != nil && !errors.Is(err, fs.ErrNotExist) {
				last = err
			}
		}
		if last != nil && time.Now().After(deadline) {
			return fmt.Errorf("removing the node's cgroup: %w", last)
		}
		if last != nil {
			time.Sleep(20 * time.Millisecond)
		}
	}
}
