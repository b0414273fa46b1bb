// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package spire

import (
	"context"
	"crypto/x509"
	"fmt"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/workloadapi"

	"github.com/fairway-mesh/fairway/internal/identity"
)

// Workload asks for the identity of this process, which SPIRE's agent attests by itself.
type Workload struct {
	socket string
	domain spiffeid.TrustDomain
	api    *workloadapi.Client
}

// NewWorkload makes a client of the Workload API. It does not connect yet.
func NewWorkload(ctx context.Context, socket, trustDomain string) (*Workload, error) {
	domain, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, fmt.Errorf("trust domain: %w", err)
	}
	api, err := workloadapi.New(ctx, workloadapi.WithAddr("unix://"+socket),
		workloadapi.WithDialOptions(dialOptions()...))
	if err != nil {
		return nil, fmt.Errorf("socket of SPIRE's Workload API %q: %w", socket, err)
	}
	return &Workload{socket: socket, domain: domain, api: api}, nil
}

// Close ends the connection.
func (w *Workload) Close() error { return w.api.Close() }

func (w *Workload) explain(err error) error {
	return explain(err, w.socket, "SPIRE has no registration entry for this pod on this node yet")
}

// Follow tells what SPIRE gives this process of an identity, and why it doesn't, until the context ends. SPIRE finds
// out by itself whose pod asks.
func (w *Workload) Follow(ctx context.Context, id string, _ []identity.Pod, tell func(identity.SVID, error)) {
	repeat(ctx, func(ctx context.Context, progress func()) error {
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		_ = w.api.WatchX509Context(ctx, contextWatch{end, func(c *workloadapi.X509Context) { // the cause says more
			progress()
			tell(pick(id, c.SVIDs))
		}})
		return w.explain(context.Cause(ctx))
	}, func(err error) { tell(identity.SVID{}, err) })
}

// FollowBundle tells the roots of the trust domain, and why there are none, until the context ends.
func (w *Workload) FollowBundle(ctx context.Context, tell func([]*x509.Certificate, error)) {
	repeat(ctx, func(ctx context.Context, progress func()) error {
		ctx, end := context.WithCancelCause(ctx)
		defer end(nil)
		_ = w.api.WatchX509Bundles(ctx, bundleWatch{end, func(set *x509bundle.Set) { // the cause says more
			progress()
			tell(w.roots(set))
		}})
		return w.explain(context.Cause(ctx))
	}, func(err error) { tell(nil, err) })
}

// contextWatch and bundleWatch end with the first error: go-spiffe would try again, but not as soon, nor ever after
// some.
type contextWatch struct {
	end   context.CancelCauseFunc
	given func(*workloadapi.X509Context)
}

func (w contextWatch) OnX509ContextUpdate(c *workloadapi.X509Context) { w.given(c) }
func (w contextWatch) OnX509ContextWatchError(err error)              { w.end(err) }

type bundleWatch struct {
	end   context.CancelCauseFunc
	given func(*x509bundle.Set)
}

func (w bundleWatch) OnX509BundlesUpdate(s *x509bundle.Set) { w.given(s) }
func (w bundleWatch) OnX509BundlesWatchError(err error)     { w.end(err) }

func (w *Workload) roots(set *x509bundle.Set) ([]*x509.Certificate, error) {
	b, ok := set.Get(w.domain)
	if !ok {
		return nil, fmt.Errorf("SPIRE's agent is of another trust domain than the Mesh's, %s", w.domain)
	}
	roots := b.X509Authorities()
	if err := identity.Given(roots); err != nil {
		return nil, fmt.Errorf("SPIRE's trust bundle can't be used: %w", err)
	}
	return roots, nil
}
