// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"context"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
)

// KeeperCertificates are the Certificates of the operator: the CA's keeper, asked by the Mesh's reconciler alone.
type KeeperCertificates struct {
	Keeper *keeper.Keeper
	// Namespace of the CA's Secret and the trust bundle.
	Namespace string
}

var _ Certificates = KeeperCertificates{}

// Reconcile takes the CA one step further.
func (k KeeperCertificates) Reconcile(ctx context.Context, mesh *v1alpha1.Mesh) (CertificatesStatus, error) {
	r, err := k.Keeper.Reconcile(ctx, keeper.ConfigFor(mesh, k.Namespace))
	if err != nil {
		return CertificatesStatus{}, err
	}
	return CertificatesStatus{Ready: r.Ready, Signing: r.Signing, Reason: r.Reason, Message: r.Message, Next: r.Next}, nil
}
