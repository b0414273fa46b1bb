// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"context"
	"math"
	"math/rand/v2"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/wake"
)

// maintain fetches and renews one identity until it is no longer wanted.
func (m *Manager) maintain(ctx context.Context, e *entry) {
	fresh := wait.Backoff{Duration: firstRetry, Factor: 2, Jitter: 0.5, Cap: retryMax, Steps: math.MaxInt}
	retry := fresh
	for {
		pause, err := m.refresh(ctx, e)
		if ctx.Err() != nil {
			return
		}
		if err != nil {
			pause = retry.Step()
			m.log.Info("no certificate, trying again", "identity", e.id, "in", pause.String(), "reason", err.Error())
		} else {
			retry = fresh
		}
		if !wake.After(ctx, pause) {
			return
		}
	}
}

// refresh gets a certificate with a new key, publishes it, and returns the time until it should be renewed.
func (m *Manager) refresh(ctx context.Context, e *entry) (time.Duration, error) {
	m.mu.Lock()
	held := identity.Held{NotAfter: e.status.notAfter, FailingSince: e.status.failing}
	m.mu.Unlock()
	key, signed, err := m.request(ctx, e.id, held)
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identities[e.id] != e { // no longer wanted; a secret published now would never be removed
		return 0, context.Canceled
	}
	defer e.tell()
	var secret *tlsv3.Secret
	if err == nil {
		secret, err = certificateSecret(e.id, signed.Chain, key)
	}
	if err != nil {
		e.status.fail(err)
		return 0, err
	}
	now := time.Now()
	renew := renewalDelay(signed.NotAfter.Sub(now))
	e.status = status{id: e.id, notAfter: signed.NotAfter, renewAt: now.Add(renew)}
	// The bundle goes first: peers with a certificate of the same new CA must be trusted before this one is shown.
	m.publisher.PublishSecrets(append(m.adopt(signed.Bundle), secret), nil)
	return renew, nil
}

func (m *Manager) request(
	ctx context.Context, id string, held identity.Held,
) (identity.PrivateKey, Signed, error) {
	select {
	case m.slots <- struct{}{}:
		defer func() { <-m.slots }()
	case <-ctx.Done():
		return identity.PrivateKey{}, Signed{}, ctx.Err()
	}
	key, err := identity.GenerateKey()
	if err != nil {
		return key, Signed{}, err
	}
	csr, err := identity.NewCSR(id, key)
	if err != nil {
		return key, Signed{}, err
	}
	signed, err := m.authority.Sign(ctx, csr, id, held)
	if err != nil {
		return key, Signed{}, err
	}
	signed.NotAfter, err = check(id, key, signed)
	return key, signed, err
}

// watchBundle follows the bundle's file and the operator's answer.
func (m *Manager) watchBundle(ctx context.Context) {
	askAt := time.Now().Add(wait.Jitter(bundleAskEvery, 0.25))
	for {
		if b, err := m.authority.Trusted(); err == nil {
			m.offer(b)
		} else if len(m.currentBundle().Roots) == 0 {
			m.log.Info("no trust bundle yet", "reason", err.Error())
		}
		if now := time.Now(); !now.Before(askAt) {
			askAt = now.Add(wait.Jitter(bundleAskEvery, 0.25))
			if b, fresh, err := m.authority.Bundle(ctx, m.currentBundle().Generation); err == nil && fresh {
				m.offer(b)
			} else if err != nil && ctx.Err() == nil {
				m.log.V(1).Info("the operator doesn't give its trust bundle", "reason", err.Error())
			}
		}
		if !wake.After(ctx, bundleFileEvery) {
			return
		}
	}
}

// renewalDelay is a random time between half and two thirds of the rest of a certificate's life, so that certificates
// of pods that started together aren't renewed together.
func renewalDelay(life time.Duration) time.Duration {
	if life <= 0 {
		return retryMax // the clock is wrong, here or there; don't hammer the operator
	}
	return life/2 + rand.N(life/6+1) //nolint:gosec // it spreads load
}
