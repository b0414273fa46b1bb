// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/types"
	ctrl "sigs.k8s.io/controller-runtime"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/metrics"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/controllers"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/identity/direct"
	"github.com/fairway-mesh/fairway/internal/identity/keeper"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// renewalLook is how often renewals that fail are looked at: how long certificates hold is told in minutes.
	renewalLook = time.Minute
	// maxHolders is how many of those who ask in vain are named.
	maxHolders = 3
)

// issuance is how this replica signs: by the mesh's CA, or by asking an issuer; and what it knows of renewals.
type issuance struct {
	authority *identity.Authority
	direct    *direct.Issuer
	renewals  *identity.Renewals
	spire     *spired
	// changed makes the Mesh look at it again.
	changed *controllers.Trigger
}

func newIssuance(ctx context.Context, mgr ctrl.Manager, o Options) (*issuance, error) {
	c, err := client.NewWithWatch(mgr.GetConfig(), client.Options{
		Scheme: mgr.GetScheme(), Mapper: mgr.GetRESTMapper(), HTTPClient: mgr.GetHTTPClient(),
	})
	if err != nil {
		return nil, fmt.Errorf("make the client for CertificateRequests: %w", err)
	}
	i := &issuance{authority: identity.NewAuthority(time.Now), changed: controllers.NewTrigger()}
	i.renewals = identity.NewRenewals(time.Now, i.notify)
	i.direct = direct.New(direct.Options{
		Client: c, Namespace: o.Namespace, Pod: o.PodName, Log: o.Log.WithName("certificates"), Registerer: metrics.Registry,
	})
	i.authority.Delegate(ctx, i.direct, i.renewals)
	i.spire = &spired{issuance: i, namespace: o.Namespace, dir: names.SPIREDir}
	return i, metrics.Registry.Register(i.authority)
}

func (i *issuance) notify() { i.changed.Notify(types.NamespacedName{Name: names.Mesh}) }

// certificates lets the Mesh's reconciler keep the CA, and tells it of renewals.
type certificates struct {
	keeper    *keeper.Keeper
	spire     *spired
	namespace string
	renewals  *identity.Renewals
}

func (i *issuance) certificates(mgr ctrl.Manager, o Options) certificates {
	return certificates{
		keeper: &keeper.Keeper{
			Client: mgr.GetClient(), Reader: mgr.GetAPIReader(), Policy: o.CARotation, Prober: i.authority, Changed: i.notify,
		},
		spire: i.spire, namespace: o.Namespace, renewals: i.renewals,
	}
}

// Reconcile implements controllers.Certificates.
func (c certificates) Reconcile(ctx context.Context, mesh *v1alpha1.Mesh) (controllers.CertificatesStatus, error) {
	now := time.Now()
	status, err := c.source(ctx, mesh)
	failing := c.renewals.Summary()
	if known := renewalStatus(failing, now); known.Reason != "" {
		status.Renewal = known
	}
	if at := now.Add(renewalLook); failing.Any && (status.Next.IsZero() || at.Before(status.Next)) {
		status.Next = at
	}
	return status, err
}

// source is how whoever gives identities stands.
func (c certificates) source(ctx context.Context, mesh *v1alpha1.Mesh) (controllers.CertificatesStatus, error) {
	cfg := keeper.ConfigFor(mesh, c.namespace)
	if mesh.Spec.SPIRE() != nil {
		return c.spire.status(mesh), c.keeper.Rest(ctx, cfg)
	}
	r, err := c.keeper.Reconcile(ctx, cfg)
	return controllers.CertificatesStatus{
		Ready: r.Ready, Signing: r.Signing, Reason: r.Reason, Message: r.Message, Next: r.Next,
		Renewal: controllers.RenewalStatus{Reason: r.RenewalReason, Message: r.RenewalMessage},
	}, err
}

// renewalStatus puts renewals that fail into words (pure).
func renewalStatus(s identity.RenewalSummary, now time.Time) controllers.RenewalStatus {
	if s.Failing == 0 {
		return controllers.RenewalStatus{}
	}
	out := controllers.RenewalStatus{Reason: v1alpha1.MeshReasonRenewalFailing, Lost: s.Without > 0}
	var failure *identity.IssueError
	if errors.As(s.Err, &failure) {
		out.Reason = string(failure.Reason)
	}
	out.Message = failingText(s) + holdText(s, now)
	return withHolders(out, s.Holders)
}

func failingText(s identity.RenewalSummary) string {
	since, why := s.Since.UTC().Format(time.RFC3339), strings.TrimSuffix(s.Err.Error(), ".")
	if s.Failing == 1 {
		return fmt.Sprintf("1 identity can't be renewed since %s: %s.", since, why)
	}
	return fmt.Sprintf("%d identities can't be renewed, the first since %s: %s.", s.Failing, since, why)
}

// holdText says for how long what is there lasts.
func holdText(s identity.RenewalSummary, now time.Time) string {
	switch {
	case s.Without == s.Failing:
		return " None of them has a valid certificate, so their pods can't connect."
	case s.Failing == 1:
		return fmt.Sprintf(" It holds until %s. It is %s.", identity.Until(s.First, now), s.FirstOf)
	}
	lost, rest := "", "All of them"
	if s.Without == 1 {
		lost, rest = " 1 of them has no valid certificate, so its pods can't connect.", "The others"
	} else if s.Without > 1 {
		lost = fmt.Sprintf(" %d of them have no valid certificate, so their pods can't connect.", s.Without)
		rest = "The others"
	}
	return fmt.Sprintf("%s %s hold until %s, when that of %s ends.", lost, rest, identity.Until(s.First, now), s.FirstOf)
}

func withHolders(out controllers.RenewalStatus, holders []string) controllers.RenewalStatus {
	named := holders[:min(len(holders), maxHolders)]
	out.Message += " Asked for by " + strings.Join(named, ", ")
	if more := len(holders) - len(named); more > 0 {
		out.Message += fmt.Sprintf(" and %d more", more)
	}
	out.Message += "."
	return out
}
