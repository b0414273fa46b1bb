// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"time"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
)

const (
	certManagerModule    = "github.com/cert-manager/cert-manager"
	certManagerNamespace = "cert-manager"
	certManagerTimeout   = 2 * time.Minute
)

// InstallCertManager applies cert-manager's CRDs and the manifests of its controllers, and waits for them. The image
// must be loaded.
func (c *Cluster) InstallCertManager(ctx context.Context, b *build.Builder) error {
	c.start = time.Now()
	dir := filepath.Join(b.Source, "hack", "certmanager")
	upstream, err := build.ModuleDir(ctx, dir, certManagerModule)
	if err != nil {
		return err
	}
	paths, err := filepath.Glob(filepath.Join(upstream, "deploy", "crds", "*.yaml"))
	if err != nil || len(paths) == 0 {
		return fmt.Errorf("no CRDs in %s: %w", upstream, err)
	}
	var manifests bytes.Buffer
	for _, path := range append(paths, filepath.Join(dir, "manifests.yaml")) {
		data, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		fmt.Fprintf(&manifests, "---\n%s\n", data)
	}
	if err := c.apply(ctx, manifests.Bytes()); err != nil {
		return err
	}
	if err := c.kubectl(ctx, "rollout", "status", "deployment/cert-manager",
		"--namespace="+certManagerNamespace, "--timeout="+certManagerTimeout.String()); err != nil {
		return err
	}
	c.say("cert-manager ready")
	return nil
}

// kubectl runs the cluster's own kubectl. What it prints goes into the error.
func (c *Cluster) kubectl(ctx context.Context, args ...string) error {
	cmd := exec.CommandContext(ctx, filepath.Join(c.Home.Bin(), "kubectl"),
		append([]string{"--kubeconfig", c.Home.Kubeconfig()}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("kubectl %s: %w\n%s", args[0], err, out)
	}
	return nil
}
