// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"os"
	"path/filepath"
	"time"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
)

// networkPolicies is the manifest of what enforces NetworkPolicies.
func networkPolicies(b *build.Builder) string {
	return filepath.Join(b.Source, "hack", "devcluster", "tools", build.NetworkPolicies.Name, "manifests.yaml")
}

// InstallNetworkPolicies has every node enforce NetworkPolicies, and waits until they do. The image must be loaded.
func (c *Cluster) InstallNetworkPolicies(ctx context.Context, b *build.Builder) error {
	c.start = time.Now()
	manifests, err := os.ReadFile(networkPolicies(b))
	if err != nil {
		return err
	}
	if err := c.apply(ctx, manifests); err != nil {
		return err
	}
	if err := c.kubectl(ctx, "rollout", "status", "daemonset/network-policies",
		"--namespace=kube-system", "--timeout=1m"); err != nil {
		return err
	}
	c.say("NetworkPolicies are enforced")
	return nil
}

// RemoveNetworkPolicies waits until no node enforces them any more: the pods take their rules back when they end.
func (c *Cluster) RemoveNetworkPolicies(ctx context.Context, b *build.Builder) error {
	c.start = time.Now()
	if err := c.kubectl(ctx, "delete", "--filename="+networkPolicies(b), "--ignore-not-found",
		"--cascade=foreground", "--timeout=1m"); err != nil {
		return err
	}
	c.say("NetworkPolicies are not enforced")
	return nil
}
