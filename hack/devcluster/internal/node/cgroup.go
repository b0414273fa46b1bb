// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

const (
	cgroupMount = "/sys/fs/cgroup"
	// Files of a cgroup of version 2: the controllers that it has, and those that it passes on.
	controllersFile = "cgroup.controllers"
	subtreeFile     = "cgroup.subtree_control"
)

// kubeletControllers are those that kubelet asks of its cgroup where the root of version 2 has them.
var kubeletControllers = []string{"cpu", "cpuset", "hugetlb", "memory", "pids"}

// cgroups are the machine's hierarchies: one where version 2 is alone, several with version 1.
type cgroups struct {
	roots []string
	// record is the file that says what was changed in roots, so that it can be taken back.
	record string
}

// machineCgroups finds the hierarchies that are mounted.
func machineCgroups(home topology.Home) (*cgroups, error) {
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return nil, err
	}
	c := &cgroups{roots: parseHierarchies(string(mounts)), record: home.Controllers()}
	if len(c.roots) == 0 {
		return nil, fmt.Errorf("no cgroup hierarchy is mounted at %s", cgroupMount)
	}
	return c, nil
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

// make makes the node's cgroup in every hierarchy: kubelet wants its cgroupRoot to exist.
func (c *cgroups) make(n topology.Node) error {
	for _, root := range c.roots {
		dir := filepath.Join(root, n.CgroupRoot())
		if err := c.passOn(root); err != nil {
			return err
		}
		if err := os.MkdirAll(dir, 0o755); err != nil {
			return fmt.Errorf("making the node's cgroup: %w", err)
		}
		var err error
		if version2(root) {
			err = makeV2(root, dir)
		} else {
			err = makeV1(root, dir)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func version2(root string) bool {
	_, err := os.Stat(filepath.Join(root, controllersFile))
	return err == nil
}

// makeV1 fills a new cpuset: it is empty, and no process may join an empty one.
func makeV1(root, dir string) error {
	for _, f := range []string{"cpuset.cpus", "cpuset.mems"} {
		if v, err := os.ReadFile(filepath.Join(root, f)); err == nil {
			if err := os.WriteFile(filepath.Join(dir, f), v, 0o644); err != nil {
				return fmt.Errorf("making the node's cpuset: %w", err)
			}
		}
	}
	return nil
}

// makeV2 makes sure of the controllers that kubelet needs. The node's cgroup passes its own on at once, though kubelet
// would do that later: the kernel lets nobody, not even systemd, take a controller from a cgroup that passes it on.
func makeV2(root, dir string) error {
	if _, err := enable(dir); err != nil {
		return err
	}
	there, err := words(filepath.Join(root, controllersFile))
	if err != nil {
		return err
	}
	passed, err := words(filepath.Join(dir, subtreeFile))
	if err != nil {
		return err
	}
	var lacks []string
	for _, name := range kubeletControllers {
		if slices.Contains(there, name) && !slices.Contains(passed, name) {
			lacks = append(lacks, name)
		}
	}
	if len(lacks) > 0 {
		return fmt.Errorf("kubelet needs the cgroup controllers %s, which %s has but does not pass on to %s: let whatever "+
			"manages cgroups on this machine delegate them (systemd: Delegate=yes), or free them from processes in the parent",
			strings.Join(lacks, ", "), root, dir)
	}
	return nil
}

// passOn lets the root pass all its controllers on, and records which of them it did not before.
func (c *cgroups) passOn(root string) error {
	if !version2(root) {
		return nil
	}
	enabled, err := enable(root)
	if err != nil || len(enabled) == 0 {
		return err
	}
	f, err := os.OpenFile(c.record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(f, "%s %s\n", root, strings.Join(enabled, " "))
	return errors.Join(err, f.Close())
}

// enable makes a cgroup pass its controllers on and returns those that it passes on only now. Each is asked for by
// itself: one that the kernel can't pass on must not keep the others.
func enable(dir string) ([]string, error) {
	have, err := words(filepath.Join(dir, controllersFile))
	if err != nil {
		return nil, err
	}
	before, err := words(filepath.Join(dir, subtreeFile))
	if err != nil {
		return nil, err
	}
	for _, name := range have {
		_ = control(dir, "+"+name)
	}
	after, err := words(filepath.Join(dir, subtreeFile))
	return slices.DeleteFunc(after, func(name string) bool { return slices.Contains(before, name) }), err
}

func control(dir, change string) error {
	return os.WriteFile(filepath.Join(dir, subtreeFile), []byte(change), 0o644)
}

func words(path string) ([]string, error) {
	data, err := os.ReadFile(path)
	return strings.Fields(string(data)), err
}

// remove removes the node's cgroups once its processes are gone.
func (c *cgroups) remove(n topology.Node) error {
	var errs []error
	for _, root := range c.roots {
		errs = append(errs, removeTree(filepath.Join(root, n.CgroupRoot())))
	}
	return errors.Join(errs...)
}

// restore takes back what make changed in the roots. A controller that somebody else has begun to pass on stays: the
// kernel refuses then.
func (c *cgroups) restore() error {
	data, err := os.ReadFile(c.record)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line)
		if len(f) < 2 || !slices.Contains(c.roots, f[0]) {
			continue
		}
		for _, name := range f[1:] {
			_ = control(f[0], "-"+name)
		}
	}
	return os.Remove(c.record)
}

// RestoreCgroups takes back what starting nodes changed in the machine's cgroups. All nodes must be stopped.
func RestoreCgroups(home topology.Home) error {
	c, err := machineCgroups(home)
	if err != nil {
		return err
	}
	return c.restore()
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
