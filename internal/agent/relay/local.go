// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"context"
	"fmt"

	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// SetLocal sets resources that the agent makes itself, as one atomic step. Of a type that is relayed otherwise, the
// names set here are the agent's from now on (until an update with a nil Resource), and are not asked of the operator.
func (r *Relay) SetLocal(typeURL string, updates []xds.Update) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.local[typeURL] {
		if r.own[typeURL] == nil {
			r.own[typeURL] = map[string]bool{}
		}
		for _, u := range updates {
			if u.Resource == nil {
				if r.own[typeURL][u.Name] { // Envoy asked for it meanwhile, and doesn't ask again
					r.ensureType(typeURL).subscribe(u.Name)
				}
				delete(r.own[typeURL], u.Name)
			} else {
				r.own[typeURL][u.Name] = true
				r.ensureType(typeURL).unsubscribe(u.Name)
			}
		}
		r.wake.Set()
	}
	typed := make([]xds.Update, len(updates))
	for i, u := range updates {
		u.TypeURL = typeURL
		typed[i] = u
	}
	r.cache.Apply(scope, typed)
}

// LocalReady says that the wildcard contents of a Local type are complete; until then an Envoy that starts waits for
// its listeners, say.
func (r *Relay) LocalReady(typeURL string) { r.cache.Ready(scope, typeURL) }

// WaitAcked waits until at least one Envoy is connected and all that are have accepted the current version of a
// resource. It returns an error with Envoy's text once Envoy rejects it, and when ctx ends one that says what was
// missing. For a listener an ACK means that Envoy took it, not yet that it finished warming.
func (r *Relay) WaitAcked(ctx context.Context, id xds.ID) error { return r.wait(ctx, id, true) }

// WaitSettled is WaitAcked, but content where no Envoy is connected, or none asks for the resource.
func (r *Relay) WaitSettled(ctx context.Context, id xds.ID) error { return r.wait(ctx, id, false) }

func (r *Relay) wait(ctx context.Context, id xds.ID, somebody bool) error {
	c := wake.New()
	r.mu.Lock()
	if r.waiters[id] == nil {
		r.waiters[id] = map[wake.Signal]struct{}{}
	}
	r.waiters[id][c] = struct{}{}
	r.mu.Unlock()
	defer func() {
		r.mu.Lock()
		defer r.mu.Unlock()
		if delete(r.waiters[id], c); len(r.waiters[id]) == 0 {
			delete(r.waiters, id)
		}
	}()
	for {
		s := r.state(id)
		switch {
		case s.Version == "":
			return fmt.Errorf("%q is not set, so Envoy cannot acknowledge it", id.Name)
		case s.Rejection() != "":
			return fmt.Errorf("the proxy rejected %q: %s", id.Name, s.Rejection())
		case s.Settled() && (len(s.Proxies) > 0 || !somebody):
			return nil
		}
		select {
		case <-c:
		case <-ctx.Done():
			why := "Envoy has not answered yet"
			if len(s.Proxies) == 0 {
				why = "no Envoy is connected to the agent; see the log of the proxy container"
			}
			return fmt.Errorf("waiting for Envoy to accept %q: %s: %w", id.Name, why, context.Cause(ctx))
		}
	}
}

// Current is what the operator says of a type: the newest of each resource, but what Envoy rejects.
func (r *Relay) Current(typeURL string) map[string]*xds.Resource {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := map[string]*xds.Resource{}
	if t := r.types[typeURL]; t != nil {
		for name, k := range t.known {
			if k.current != nil && k.rejected != k.current.Version() {
				out[name] = k.current
			}
		}
	}
	return out
}
