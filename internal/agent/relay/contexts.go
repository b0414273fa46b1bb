// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Each identity that dials an address in mTLS has a certificate context in the address's cluster, 12 KB, and Envoy
// keeps it as long as it has the cluster. It can't be told to forget one. But a cluster that changes in any respect
// replaces the one before, and begins without contexts: open connections go on in the former, which Envoy forgets with
// the last of them, and whoever dials again has a context again. So when there are too many, the clusters that have
// most are renewed, and nobody loses an address for what others cost.

const (
	// leastOfContexts is the part of the room for addresses that there is for contexts in any case, beside it. As long as
	// addresses leave more, contexts have that.
	leastOfContexts = 4
	// enoughOfContexts: so many quarters of their room are left when there were too many, so that the same isn't to be
	// done again at once.
	enoughOfContexts = 3
	// newContexts are as many as Envoy makes in a second: one after another in its main thread, 0.2 ms each (measured).
	newContexts = 5000
	// kernelTick is more than the kernel may be wrong about when something was dialled.
	kernelTick = 20 * time.Millisecond
	// lookAhead is until when at least it is looked again what pods dial.
	lookAhead = 5 * time.Second
)

// contexts are those that Envoy has, as far as the kernel tells who dialled what. It is pure, but for its own state.
type contexts struct {
	// of addresses whose connections may be in mTLS.
	of map[string]*made
	// further are those beyond the first of each address, which is in the address's price.
	further int
	looked  time.Time
}

// made is what was made in a cluster since it came.
type made struct {
	since      time.Time
	identities []string // sorted
}

func (m *made) further() int { return max(0, len(m.identities)-1) }

func noContexts() contexts { return contexts{of: map[string]*made{}} }

// begin notes that an address has a cluster without contexts.
func (c *contexts) begin(address string, now time.Time) {
	c.forget(address)
	c.of[address] = &made{since: now}
}

// forget an address that Envoy doesn't have any more.
func (c *contexts) forget(address string) {
	if m := c.of[address]; m != nil {
		c.further -= m.further()
		delete(c.of, address)
	}
}

// note that somebody of an identity dialled an address.
func (c *contexts) note(identity, address string, at time.Time) {
	m := c.of[address]
	if m == nil || at.Add(kernelTick).Before(m.since) {
		return
	}
	if n, has := slices.BinarySearch(m.identities, identity); !has {
		c.further -= m.further()
		m.identities = slices.Insert(m.identities, n, identity)
		c.further += m.further()
	}
}

// unsure tells whether there may be more than there is room for, by the next look at what so many identities dialled.
// What the kernel has noted is looked at in any case before it is forgotten.
func (c *contexts) unsure(identities, room int, now time.Time) bool {
	since := now.Sub(c.looked)
	if since >= names.DialledTime/2 {
		return true
	}
	more := min(identities*len(c.of), int((since+lookAhead).Seconds()*newContexts))
	return c.further+more > room
}

// tooMany are the addresses to renew: those that have most, until enough is left.
func (c *contexts) tooMany(room int) (renew []string) {
	if c.further <= room {
		return nil
	}
	over := c.further - room*enoughOfContexts/4
	for _, address := range slices.SortedFunc(maps.Keys(c.of), func(a, b string) int {
		return cmp.Or(cmp.Compare(c.of[b].further(), c.of[a].further()), cmp.Compare(a, b))
	}) {
		if over <= 0 {
			break
		}
		over -= c.of[address].further()
		renew = append(renew, address)
	}
	return renew
}

// forContexts is how many there is room for. A context is one unit of what addresses cost.
func (e *room) forContexts() int {
	return max(e.addresses.limit-e.taken(), e.addresses.limit/leastOfContexts)
}

// Unsure tells whether DialledBy and Forget are needed, on a node whose captured pods have so many identities.
func (r *Relay) Unsure(identities int) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.opts.MaxEndpoints > 0 && r.contexts.unsure(identities, r.room.forContexts(), r.opts.Clock.Now())
}

// DialledBy is told what somebody of an identity dialled, by the names of the clusters when last.
func (r *Relay) DialledBy(identity string, when map[string]time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for address, at := range when {
		r.contexts.note(identity, address, at)
		if r.nowhere.note(address, at) {
			r.recall(address, at)
		}
	}
	r.metrics.contexts.Set(float64(r.contexts.further))
}

// Forget has Envoy forget what is too much, once DialledBy was told of all pods: contexts of identities, and addresses
// that lead nowhere.
func (r *Relay) Forget() {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.opts.Clock.Now()
	r.contexts.looked = now
	r.renew(now)
	r.forgetNowhere(now)
}

// renew has Envoy forget contexts where there are too many. r.mu is held.
func (r *Relay) renew(now time.Time) {
	had, t := r.contexts.further, r.ensureType(xds.TypeCluster)
	var updates []xds.Update
	for _, address := range r.contexts.tooMany(r.room.forContexts()) {
		fresh := r.renewed(t.known[address], now)
		if fresh == nil {
			r.contexts.forget(address)
			continue
		}
		r.contexts.begin(address, now)
		t.known[address].current = fresh
		updates = append(updates, xds.Set(fresh))
	}
	if len(updates) == 0 {
		return
	}
	r.cache.Apply(scope, updates)
	r.save.Set()
	r.changed()
	r.metrics.contexts.Set(float64(r.contexts.further))
	r.metrics.renewed.Add(float64(len(updates)))
	r.log.V(1).Info("so many identities dialled the same addresses that the proxy was to forget certificates of theirs; "+
		"nobody loses anything by that", "addresses", len(updates), "contexts", had, "left", r.contexts.further)
}

// renewed is a cluster that replaces the one that Envoy has, and does the same; nil if Envoy has none.
func (r *Relay) renewed(k *known, now time.Time) *xds.Resource {
	if k == nil || k.current == nil || k.rejected == k.current.Version() {
		return nil
	}
	mark := fmt.Sprint(now.UnixNano())
	packed, err := upstream.Renewed(k.current.Any(), mark)
	if err != nil {
		return nil
	}
	out, err := xds.NewRawResource(k.current.Name(), operatorsVersion(k.current.Version())+"/"+mark, packed)
	if err != nil {
		return nil
	}
	return out
}

// asRenewed is what Envoy has of a cluster that the operator sends again, if that was renewed since: the same.
func (k *known) asRenewed(res *xds.Resource) *xds.Resource {
	if res.TypeURL() == xds.TypeCluster && k != nil && k.current != nil && k.rejected != k.current.Version() &&
		operatorsVersion(k.current.Version()) == res.Version() {
		return k.current
	}
	return res
}

// noteContexts notes what the contexts of a cluster begin with that Envoy gets. r.mu is held.
func (r *Relay) noteContexts(res, before *xds.Resource, now time.Time) {
	if r.opts.MaxEndpoints == 0 || res.TypeURL() != xds.TypeCluster {
		return
	}
	same := before != nil && before.Version() == res.Version()
	if before == nil {
		now = time.Time{} // who dialled it already waits for it
	}
	switch {
	case !upstream.TakesCertificates(res.Any()):
		r.contexts.forget(res.Name())
	case !same || r.contexts.of[res.Name()] == nil:
		r.contexts.begin(res.Name(), now)
	}
}
