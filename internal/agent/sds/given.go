// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package sds

import (
	"cmp"
	"context"
	"crypto/x509"
	"fmt"
	"slices"
	"strings"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/wake"
)

// reportEvery is how often the operator is told of identities that fail: it forgets them after some minutes.
const reportEvery = 30 * time.Second

// NewGiven makes a manager of identities that a source gives. told hears of the roots before anything under them is
// used.
func NewGiven(s Source, p Publisher, told func([]*x509.Certificate), log logr.Logger) *Manager {
	m := NewManager(nil, p, log)
	m.source, m.told = s, told
	return m
}

// add notes that a pod has the identity; the manager's lock is held.
func (e *entry) add(pod identity.Pod) {
	if pod == (identity.Pod{}) {
		return
	}
	if e.pods[pod]++; e.pods[pod] > 1 {
		return
	}
	select {
	case e.again <- struct{}{}:
	default:
	}
}

// remove takes that back; the manager's lock is held. Nobody is asked anew for that: what was given holds.
func (e *entry) remove(pod identity.Pod) {
	if e.pods[pod]--; e.pods[pod] <= 0 {
		delete(e.pods, pod)
	}
}

// follow takes what the source gives for an identity until it is no longer wanted. Pods that come make it ask anew.
func (m *Manager) follow(ctx context.Context, e *entry) {
	for ctx.Err() == nil {
		select {
		case <-e.again: // what is asked for is read below
		default:
		}
		m.mu.Lock()
		pods := make([]identity.Pod, 0, len(e.pods))
		for p := range e.pods {
			pods = append(pods, p)
		}
		m.mu.Unlock()
		slices.SortFunc(pods, func(a, b identity.Pod) int {
			return cmp.Or(strings.Compare(a.Name, b.Name), strings.Compare(a.UID, b.UID))
		})
		asking, stop := context.WithCancel(ctx)
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			m.source.Follow(asking, e.id, pods, func(s identity.SVID, err error) { m.receive(e, s, err) })
		}()
		select {
		case <-e.again:
		case <-ctx.Done():
		}
		stop()
		<-ended
	}
}

// receive takes an identity, or why there is none.
func (m *Manager) receive(e *entry, s identity.SVID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.identities[e.id] != e { // a secret published now would never be removed
		return
	}
	if err != nil {
		m.fail(e, err)
		return
	}
	e.given = s
	if secret := m.settle(e); secret != nil {
		m.publisher.PublishSecrets([]*tlsv3.Secret{secret}, nil)
	}
}

// settle uses what was given once the roots that it leads to are there, and returns what must be published. What was
// in use goes on until then, and where what was given isn't used. The lock is held.
func (m *Manager) settle(e *entry) *tlsv3.Secret {
	if len(e.given.Chain) == 0 {
		return nil
	}
	if e.given.Same(e.used) {
		e.status.error, e.status.failing = "", time.Time{}
		return nil
	}
	if len(m.bundle.Roots) == 0 {
		return nil
	}
	err := e.given.Check(e.id, m.bundle, time.Now())
	var secret *tlsv3.Secret
	if err == nil {
		secret, err = certificateSecret(e.id, identity.EncodeCertificates(e.given.Chain), e.given.Key)
	}
	if err != nil {
		m.fail(e, fmt.Errorf("what was given isn't used: %w", err))
		return nil
	}
	e.used = e.given
	e.status = status{id: e.id, notAfter: e.used.NotAfter(), renewAt: e.used.Overdue()}
	e.tell()
	return secret
}

// fail notes why there is nothing newer; the lock is held.
func (m *Manager) fail(e *entry, err error) {
	if e.status.error != err.Error() {
		m.log.Info("no certificate", "identity", e.id, "reason", err.Error())
	}
	e.status.fail(err)
	e.tell()
}

// followBundle takes the source's roots until the context ends. The newest count, and take the place of all others:
// SPIRE announces roots before it uses them, and takes them back after.
func (m *Manager) followBundle(ctx context.Context) {
	m.source.FollowBundle(ctx, func(roots []*x509.Certificate, err error) {
		if err != nil {
			m.log.Info("no newer trust bundle", "reason", err.Error())
			return
		}
		m.told(roots)
		m.mu.Lock()
		defer m.mu.Unlock()
		if slices.EqualFunc(m.bundle.Roots, roots, (*x509.Certificate).Equal) {
			return
		}
		m.log.Info("trust bundle changed", "roots", len(roots))
		changed := m.adopt(identity.Bundle{Generation: m.bundle.Generation + 1, Roots: roots})
		for _, e := range m.identities {
			if secret := m.settle(e); secret != nil {
				changed = append(changed, secret)
			}
		}
		m.publisher.PublishSecrets(changed, nil)
	})
}

// Report tells the operator what fails, again and again, and when nothing does any more, until the context ends.
func (m *Manager) Report(ctx context.Context, to func(context.Context, []identity.Failing) error) {
	said := false
	for wake.After(ctx, reportEvery) {
		failing := m.failing()
		if len(failing) == 0 && !said {
			continue
		}
		if err := to(ctx, failing); err != nil {
			m.log.V(1).Info("the operator doesn't hear of identities that fail", "reason", err.Error())
			continue
		}
		said = len(failing) > 0
	}
}

// failing are those that somebody wants and that aren't renewed.
func (m *Manager) failing() []identity.Failing {
	var out []identity.Failing
	for _, s := range m.statuses() {
		if s.wanted && s.error != "" && len(out) < identity.MaxReported {
			out = append(out, identity.Failing{
				Identity: s.id, Held: identity.Held{NotAfter: s.notAfter, FailingSince: s.failing},
				Reason: s.error[:min(len(s.error), identity.MaxReason)],
			})
		}
	}
	return out
}
