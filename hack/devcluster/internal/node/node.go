// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node makes a node out of namespaces: it starts one, is its PID 1, runs commands in it and takes it away
// again. A node is a process tree with its own network, mounts, host name, IPC and process numbers, and one cgroup per
// hierarchy; when PID 1 is killed, everything of it but the named network namespace and the cgroups is gone.
package node

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/nodeconf"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/process"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// Start starts the node unless it runs. It reports whether it had to. The node's network namespace must exist.
func Start(home topology.Home, n topology.Node) (bool, error) {
	if process.Running(home.Process(n.Name)) {
		return false, nil
	}
	if err := os.MkdirAll(home.NodeRoot(n.Name), 0o755); err != nil {
		return false, err
	}
	groups, err := machineCgroups(home)
	if err != nil {
		return false, err
	}
	// Cgroups of a node that somebody else killed: kubelet would look for the container of each, for three seconds.
	if err := groups.remove(n); err != nil {
		return false, err
	}
	if err := groups.make(n); err != nil {
		return false, err
	}
	err = inNetns(n.Netns(), func() error {
		cmd, err := process.Self(home.Log(n.Name), InitCommand, n.Name)
		if err != nil {
			return err
		}
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWUTS | unix.CLONE_NEWIPC | unix.CLONE_NEWPID
		return process.Start(cmd, home.Process(n.Name))
	})
	if err != nil {
		return false, fmt.Errorf("starting %s: %w", n.Name, err)
	}
	return true, nil
}

// Stop kills the node and removes its cgroups. Its files stay.
func Stop(home topology.Home, n topology.Node) error {
	if err := process.Kill(home.Process(n.Name)); err != nil {
		return fmt.Errorf("stopping %s: %w", n.Name, err)
	}
	groups, err := machineCgroups(home)
	if err != nil {
		return err
	}
	return groups.remove(n)
}

// inNetns runs f on a thread in the named network namespace; a process that f starts begins there.
func inNetns(name string, f func() error) error {
	done := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine instead of going back to the pool in a foreign namespace.
		runtime.LockOSThread()
		h, err := vnetns.GetFromName(name)
		if err != nil {
			done <- fmt.Errorf("network namespace %s: %w", name, err)
			return
		}
		defer h.Close()
		if err := vnetns.Set(h); err != nil {
			done <- err
			return
		}
		done <- f()
	}()
	return <-done
}

// Command returns a command that runs in all namespaces of the node or, for the name of the lan, in its network
// namespace.
func Command(home topology.Home, name string, args ...string) (*exec.Cmd, error) {
	if name == topology.Lan {
		cmd := exec.Command("nsenter", append([]string{"--net=" + filepath.Join("/run/netns", topology.LanNetns), "--"},
			args...)...)
		cmd.Env = environment("PATH="+home.Bin()+":"+os.Getenv("PATH"), "KUBECONFIG="+home.InnerKubeconfig())
		return cmd, nil
	}
	if _, err := topology.Find(name); err != nil {
		return nil, err
	}
	pid, err := process.PID(home.Process(name))
	if err != nil {
		return nil, fmt.Errorf("%s is not running: start it with `up`", name)
	}
	cmd := exec.Command("nsenter", append([]string{
		"--target", fmt.Sprint(pid), "--mount", "--uts", "--ipc", "--net", "--pid", "--root", "--wd", "--",
	}, args...)...)
	cmd.Env = append(environment(nodeconf.Environment()...), "NODE="+name)
	return cmd, nil
}

// environment is this process's, with replacements, and without HTTP proxies: none can be reached from in there.
func environment(replace ...string) []string {
	var out []string
next:
	for _, kv := range os.Environ() {
		key, _, _ := strings.Cut(kv, "=")
		if strings.HasSuffix(strings.ToLower(key), "_proxy") {
			continue
		}
		for _, r := range replace {
			if strings.HasPrefix(r, key+"=") {
				continue next
			}
		}
		out = append(out, kv)
	}
	return append(out, replace...)
}

// thisMachine finds what the node's configuration needs to know.
func thisMachine(home topology.Home) (nodeconf.Machine, error) {
	runc, err := exec.LookPath("runc")
	if err != nil {
		return nodeconf.Machine{}, err
	}
	if strings.HasPrefix(runc, "/sbin/") || strings.HasPrefix(runc, "/bin/") {
		runc = "/usr" + runc
	}
	m := nodeconf.Machine{Runc: runc, Snapshotter: "overlayfs"}
	var st syscall.Statfs_t
	if err := syscall.Statfs(home.State(), &st); err != nil {
		return m, err
	}
	if st.Type == unix.OVERLAYFS_SUPER_MAGIC { // no overlay on an overlay
		m.Snapshotter = "native"
	}
	return m, nil
}
