// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keeper

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// probeTimeout bounds a trial of an issuer, probeRetry is the wait after one that failed.
	probeTimeout = time.Minute
	probeRetry   = 30 * time.Second
)

// Prober has an external CA sign a certificate for nobody; identity.Authority is one.
type Prober interface {
	Probe(ctx context.Context, s *identity.Signer, id string, lifetime time.Duration) error
}

// external is the issuer that signs each certificate itself. It is offered only once it has signed one that leads to
// the roots that it is said to have: an issuer that doesn't do what the mesh needs never replaces a CA that does, nor
// do roots that aren't its own replace those that are.
func (k *Keeper) external(ctx context.Context, cfg Config, state identity.State) (*identity.Signer, *problem, error) {
	if err := k.dropCertificate(ctx, cfg); err != nil {
		return nil, nil, err
	}
	signer, bad, err := k.readExternal(ctx, cfg)
	if err != nil || bad != nil {
		return nil, bad, err
	}
	if k.Prober == nil || signer.Same(state.Active) || signer.Same(state.Next) {
		return signer, nil, nil
	}
	id := names.SPIFFEID(cfg.TrustDomain, cfg.Namespace, names.OperatorServiceAccount)
	done, err := k.probes.of(ctx, k.Prober, trial{signer: signer, id: id, lifetime: cfg.LeafLifetime}, k.now())
	switch {
	case err != nil:
		return nil, &problem{issueReason(err), fmt.Sprintf("A trial of the issuer fails: %v.", err)}, nil
	case !done:
		return nil, &problem{
			v1alpha1.MeshReasonPending, fmt.Sprintf("Waiting for %s to sign a first certificate.", signer.External.Issuer),
		}, nil
	}
	return signer, nil, nil
}

func (k *Keeper) readExternal(ctx context.Context, cfg Config) (*identity.Signer, *problem, error) {
	ref, bundle := withDefaults(cfg.Direct.IssuerRef), cfg.Direct.TrustBundleRef
	if bundle == nil { // the schema refuses it
		return nil, &problem{
			v1alpha1.MeshReasonInvalid, "Mode Direct needs spec.certificates.certManager.trustBundleRef.",
		}, nil
	}
	key := bundle.Key
	if key == "" {
		key = names.TrustBundleKey
	}
	cm := &corev1.ConfigMap{}
	err := k.Reader.Get(ctx, client.ObjectKey{Namespace: cfg.Namespace, Name: bundle.Name}, cm)
	if err != nil && !apierrors.IsNotFound(err) {
		return nil, nil, fmt.Errorf("read ConfigMap %s/%s: %w", cfg.Namespace, bundle.Name, err)
	}
	text, ok := cm.Data[key]
	if !ok {
		return nil, &problem{v1alpha1.MeshReasonTrustBundleInvalid, fmt.Sprintf(
			"There is no ConfigMap %s/%s with key %s: it must hold the roots that certificates of %s lead to.",
			cfg.Namespace, bundle.Name, key, issuerOf(ref))}, nil
	}
	signer, err := identity.NewExternal(issuerOf(ref), []byte(text), k.now())
	if err != nil {
		return nil, &problem{v1alpha1.MeshReasonTrustBundleInvalid, fmt.Sprintf(
			"Key %s of ConfigMap %s/%s can't be used: %v.", key, cfg.Namespace, bundle.Name, err)}, nil
	}
	return signer, nil, nil
}

func issuerOf(ref v1alpha1.IssuerReference) identity.IssuerRef {
	return identity.IssuerRef{Name: ref.Name, Kind: ref.Kind, Group: ref.Group}
}

// issueReason is the condition's reason for an issuer's failure.
func issueReason(err error) string {
	var failure *identity.IssueError
	if errors.As(err, &failure) && failure.Reason != identity.IssueBusy {
		return string(failure.Reason)
	}
	return v1alpha1.MeshReasonIssuerNotReady
}

// trial is one certificate that an issuer is to sign.
type trial struct {
	signer   *identity.Signer
	id       string
	lifetime time.Duration
}

func (t trial) same(o trial) bool {
	return t.signer.Same(o.signer) && t.id == o.id && t.lifetime == o.lifetime
}

// probes remembers the outcome of the newest trial. Trials run by themselves: an issuer may take a minute, and the Mesh
// is not to wait.
type probes struct {
	// changed is told when a trial ends.
	changed func()

	mu      sync.Mutex
	trial   trial
	running bool
	done    bool
	err     error
	ended   time.Time
}

// of is the outcome of a trial, which it begins where there is none, or where it failed a while ago. While that goes on
// the former failure stands.
func (p *probes) of(ctx context.Context, prober Prober, t trial, now time.Time) (done bool, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.trial.same(t) {
		if p.running {
			return false, nil // the outcome is of another one; the next begins then
		}
		p.trial, p.done, p.err = t, false, nil
	}
	if !p.running && (!p.done || p.err != nil && now.Sub(p.ended) >= probeRetry) {
		p.running = true
		go p.run(context.WithoutCancel(ctx), prober, t)
	}
	return p.done, p.err
}

func (p *probes) run(ctx context.Context, prober Prober, t trial) {
	ctx, cancel := context.WithTimeout(ctx, probeTimeout)
	defer cancel()
	err := prober.Probe(ctx, t.signer, t.id, t.lifetime)
	p.mu.Lock()
	p.running, p.done, p.err, p.ended = false, true, err, time.Now()
	p.mu.Unlock()
	if p.changed != nil {
		p.changed()
	}
}
