// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package cluster takes the whole dev cluster up and down. Both do only what is missing: up on a running cluster and
// down on a stopped one change nothing.
package cluster

import (
	"bytes"
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/lan"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/lanagent"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/node"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/pki"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

//go:embed coredns.yaml
var coreDNS []byte

// Cluster is the dev cluster whose files are in Home.
type Cluster struct {
	Home topology.Home
	// Out gets the progress.
	Out   io.Writer
	start time.Time
}

func (c *Cluster) say(format string, args ...any) {
	fmt.Fprintf(c.Out, "%6.2fs %s\n", time.Since(c.start).Seconds(), fmt.Sprintf(format, args...))
}

// Lock keeps other commands that change the cluster or the binaries waiting until the returned function is called. It
// tells out where it has to wait itself.
func Lock(home topology.Home, out io.Writer) (func(), error) {
	if err := os.MkdirAll(string(home), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(home.Lock(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	err = unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		fmt.Fprintf(out, "waiting for another devcluster command, which holds %s\n", home.Lock())
		err = unix.Flock(int(f.Fd()), unix.LOCK_EX)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", home.Lock(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// NeedsRoot is an error for users who can't run the cluster.
func NeedsRoot() error {
	if os.Geteuid() != 0 {
		return errors.New("the dev cluster needs root: it makes network namespaces, mounts and cgroups")
	}
	return nil
}

// Up starts what doesn't run and returns when nodes and cluster DNS are ready. The binaries must be built.
func (c *Cluster) Up(ctx context.Context) error {
	c.start = time.Now()
	if err := NeedsRoot(); err != nil {
		return err
	}
	c.warnOfInotify()
	if err := os.MkdirAll(c.Home.State(), 0o755); err != nil {
		return err
	}
	if err := pki.Ensure(c.Home.PKI()); err != nil {
		return err
	}
	if err := lan.Up(); err != nil {
		return err
	}
	for _, n := range topology.Nodes {
		started, err := node.Start(c.Home, n)
		if err != nil {
			return err
		}
		if started {
			c.say("%s started", n.Name)
		} else {
			c.say("%s is running already", n.Name)
		}
	}
	if err := lanagent.Start(c.Home); err != nil {
		return err
	}
	return c.waitReady(ctx)
}

const (
	inotifyInstances = "/proc/sys/fs/inotify/max_user_instances"
	// enoughInotify is what kubelets, containerds and a few dozen pods are known to get along with.
	enoughInotify = 512
)

// warnOfInotify tells of a limit that pods of this cluster and programs of its user share. It is the machine's, so it
// is not changed here.
func (c *Cluster) warnOfInotify() {
	data, err := os.ReadFile(inotifyInstances)
	if err != nil {
		return
	}
	if limit, err := strconv.Atoi(strings.TrimSpace(string(data))); err == nil && limit < enoughInotify {
		c.say("fs.inotify.max_user_instances is %d; should programs fail with \"too many open files\": sysctl "+
			"fs.inotify.max_user_instances=%d",
			limit, enoughInotify)
	}
}

// apply applies manifests with the cluster's own kubectl.
func (c *Cluster) apply(ctx context.Context, manifests []byte) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Home.Bin(), "kubectl"), "--kubeconfig", c.Home.Kubeconfig(),
		"apply", "--server-side", "--force-conflicts", "--field-manager=fairway-devcluster", "-f", "-")
	var out bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = bytes.NewReader(manifests), &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("kubectl apply: %w\n%s", err, out.Bytes())
	}
	return nil
}

// Down stops everything, and removes the state unless it is to be kept (etcd, images).
func (c *Cluster) Down(keep bool) error {
	c.start = time.Now()
	errs := []error{lanagent.Stop(c.Home)}
	for _, n := range topology.Nodes {
		errs = append(errs, node.Stop(c.Home, n))
	}
	errs = append(errs, node.RestoreCgroups(c.Home), lan.Down())
	if err := errors.Join(errs...); err != nil {
		return err
	}
	if !keep {
		if err := c.removeState(); err != nil {
			return err
		}
	}
	c.say("the cluster is down")
	return nil
}

func (c *Cluster) removeState() error {
	// The nodes' mounts lived in namespaces that are gone. Should one ever show here, deleting through it would be a
	// disaster.
	mounts, err := os.ReadFile("/proc/self/mounts")
	if err != nil {
		return err
	}
	if strings.Contains(string(mounts), " "+c.Home.State()) {
		return fmt.Errorf("something is mounted below %s: unmount it first", c.Home.State())
	}
	for _, f := range []string{c.Home.Kubeconfig(), c.Home.InnerKubeconfig()} {
		if err := os.Remove(f); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return os.RemoveAll(c.Home.State())
}
