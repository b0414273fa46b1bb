// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strings"
	"testing"

	"github.com/vishvananda/netlink"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/process"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// TestUpAndDown: up on a running cluster and down on a stopped one change nothing, and down leaves the machine as it
// was.
func TestUpAndDown(t *testing.T) {
	home, err := topology.FindHome()
	if err != nil {
		t.Fatal(err)
	}
	switch {
	case os.Geteuid() != 0:
		t.Skip("skipped: the dev cluster needs root")
	case process.Running(home.Process(topology.Nodes[0].Name)):
		t.Skip("skipped: the dev cluster is up, and this test would take it down (`down`)")
	}
	run := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("./devcluster", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("devcluster %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
	run("down") // what an ended machine left
	before := traces(t)

	t.Cleanup(func() { run("down") })
	if out := run("up"); strings.Count(out, " started\n") != len(topology.Nodes) {
		t.Errorf("up did not start %d nodes:\n%s", len(topology.Nodes), out)
	}
	records := func() string {
		var all strings.Builder
		for _, n := range topology.Nodes {
			data, err := os.ReadFile(home.Process(n.Name))
			if err != nil {
				t.Fatal(err)
			}
			all.Write(data)
		}
		return all.String()
	}
	first := records()
	if out := run("up"); strings.Count(out, " is running already\n") != len(topology.Nodes) {
		t.Errorf("up on a running cluster:\n%s", out)
	}
	if again := records(); again != first {
		t.Errorf("up restarted nodes: processes\n%swere\n%s", again, first)
	}
	if during := traces(t); fmt.Sprint(during["links"], during["routes"]) != fmt.Sprint(
		before["links"], before["routes"]) {
		t.Errorf("the cluster has a leg in the machine's own network: %v %v, were %v %v", during["links"], during["routes"],
			before["links"], before["routes"])
	}

	run("down")
	for what, now := range traces(t) {
		if fmt.Sprint(now) != fmt.Sprint(before[what]) {
			t.Errorf("%s after down:\n%s\nwere\n%s", what, strings.Join(now, "\n"), strings.Join(before[what], "\n"))
		}
	}
	for _, path := range []string{home.State(), home.Kubeconfig(), home.InnerKubeconfig()} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is left", path)
		}
	}
	if out := run("down"); !strings.Contains(out, "the cluster is down") {
		t.Errorf("down on a stopped cluster:\n%s", out)
	}
}

// traces is what a dev cluster could leave on its machine, each kind sorted.
func traces(t *testing.T) map[string][]string {
	t.Helper()
	out := map[string][]string{}
	glob := func(what, pattern string) {
		found, err := filepath.Glob(pattern)
		if err != nil {
			t.Fatal(err)
		}
		out[what] = append(out[what], found...)
	}
	glob("network namespaces", "/run/netns/*")
	glob("cgroups", "/sys/fs/cgroup/fairway-*")
	glob("cgroups", "/sys/fs/cgroup/*/fairway-*")
	if controllers, err := os.ReadFile("/sys/fs/cgroup/cgroup.subtree_control"); err == nil {
		out["cgroup controllers"] = strings.Fields(string(controllers))
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		t.Fatal(err)
	}
	out["mounts"] = strings.Split(string(mounts), "\n")
	links, err := netlink.LinkList()
	if err != nil {
		t.Fatal(err)
	}
	for _, l := range links {
		out["links"] = append(out["links"], l.Attrs().Name)
	}
	routes, err := netlink.RouteList(nil, netlink.FAMILY_ALL)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range routes {
		out["routes"] = append(out["routes"], r.String())
	}
	commands, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range commands {
		if line, err := os.ReadFile(c); err == nil && strings.HasPrefix(string(line), process.Name+"\x00") {
			out["processes"] = append(out["processes"], strings.ReplaceAll(string(line), "\x00", " "))
		}
	}
	for _, list := range out {
		sort.Strings(list)
	}
	return out
}
