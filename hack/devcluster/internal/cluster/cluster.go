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

// Lock keeps other commands that change the cluster or the binaries waiting until the returned function is called.
func Lock(home topology.Home) (func(), error) {
	if err := os.MkdirAll(string(home), 0o755); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(home.Lock(), os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.Fd()), unix.LOCK_EX); err != nil {
		return nil, errors.Join(fmt.Errorf("locking %s: %w", home.Lock(), err), f.Close())
	}
	return func() { _ = f.Close() }, nil
}

// Up starts what doesn't run and returns when nodes and cluster DNS are ready. The binaries must be built.
func (c *Cluster) Up(ctx context.Context) error {
	c.start = time.Now()
	if os.Geteuid() != 0 {
		return errors.New("the dev cluster needs root: it makes network namespaces, mounts and cgroups")
	}
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

// Apply applies manifests with the cluster's own kubectl.
func (c *Cluster) Apply(ctx context.Context, manifests []byte) error {
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
	errs = append(errs, lan.Down())
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
