// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"errors"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
)

// InstallCertManager applies cert-manager's CRDs and the manifests of its controllers.
func (c *Cluster) InstallCertManager(ctx context.Context, b *build.Builder) error {
	return errors.New("not there yet")
}
