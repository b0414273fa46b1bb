// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/xds"
)

// relayed is the state of one relayed resource type. Relay.mu guards it.
type relayed struct {
	typeURL string
	// subscribed is what is subscribed to at the operator: names, or xds.Wildcard. The value is since when no Envoy
	// subscribes to it; zero while one does.
	subscribed map[string]time.Time
	known      map[string]*known
	// ready: the wildcard was answered once, so the local cache may answer it.
	ready bool

	// The rest belongs to the present stream, and is reset with it.

	opened        bool                // the first request is sent
	toSubscribe   map[string]struct{} // in the next request, perhaps again
	toUnsubscribe map[string]struct{} // likewise
	// pending are responses that Envoy has not decided about yet; acks are ACKs and NACKs to send.
	pending []*received
	acks    []ack
}

// known is one relayed resource.
type known struct {
	// current is the newest version received; nil if the operator says that there is no such resource.
	current *xds.Resource
	// good is the newest version that Envoy accepted.
	good *xds.Resource
	// rejected is the version that Envoy refused, and reason its text.
	rejected, reason string
	// told is what the operator was told about the current version.
	told outcome
}

type outcome int

const (
	notAcked outcome = iota
	acked
	nacked
)

// received is a response of the operator.
type received struct {
	nonce string
	// versions by name are what it brought; what Envoy has decided about leaves waiting.
	versions map[string]string
	waiting  map[string]struct{}
	errs     []string
}

// ack answers a response: a NACK if it has an error.
type ack struct{ nonce, err string }

// maxReported bounds the rejections that one NACK lists; the operator isolates them one by one anyway.
const maxReported = 8

func newRelayed(typeURL string) *relayed {
	t := &relayed{typeURL: typeURL, subscribed: map[string]time.Time{}, known: map[string]*known{}}
	t.reset()
	return t
}

// reset forgets the stream.
func (t *relayed) reset() {
	t.opened, t.pending, t.acks = false, nil, nil
	t.toSubscribe, t.toUnsubscribe = map[string]struct{}{}, map[string]struct{}{}
	for _, k := range t.known {
		k.told = notAcked
	}
}

// id names a resource of the type.
func (t *relayed) id(name string) xds.ID { return xds.ID{TypeURL: t.typeURL, Name: name} }

func (t *relayed) subscribe(name string) {
	if _, ok := t.subscribed[name]; !ok {
		t.toSubscribe[name] = struct{}{}
		delete(t.toUnsubscribe, name)
	}
	t.subscribed[name] = time.Time{}
}

func (t *relayed) unsubscribe(name string) {
	if _, ok := t.subscribed[name]; ok {
		delete(t.subscribed, name)
		delete(t.toSubscribe, name)
		t.toUnsubscribe[name] = struct{}{}
	}
}

func (t *relayed) covers(name string) bool {
	if _, ok := t.subscribed[name]; ok {
		return true
	}
	_, ok := t.subscribed[xds.Wildcard]
	return ok
}

// ensureType returns the state of a type, made if need be. r.mu is held.
func (r *Relay) ensureType(typeURL string) *relayed {
	t := r.types[typeURL]
	if t == nil {
		t = newRelayed(typeURL)
		r.types[typeURL] = t
	}
	return t
}

// interest turns what Envoy wants into what to ask of the operator.
func (r *Relay) interest(i xds.Interest) {
	if r.local[i.TypeURL] {
		if r.onLocalInterest != nil {
			r.onLocalInterest(i)
		}
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.own[i.TypeURL][i.Name] {
		return
	}
	t := r.ensureType(i.TypeURL)
	_, asked := t.subscribed[i.Name]
	switch {
	case i.Wanted:
		if !asked && !r.admit(t.id(i.Name)) {
			return // Prefer decides
		}
		if !asked {
			r.hurry.Set()
		}
		t.subscribe(i.Name)
		if k := t.known[i.Name]; k != nil && k.current == nil {
			// The operator said so earlier and will not say it again; the cache forgot with the last subscriber.
			r.cache.Apply(scope, []xds.Update{xds.Gone(t.id(i.Name))})
		}
	case !asked:
		r.forget(t.id(i.Name))
	case i.Disconnected && !r.forgot(t.id(i.Name)):
		t.subscribed[i.Name] = time.Now() // Envoy is likely to come back
	default:
		r.release(t, i.Name)
	}
	r.wake.Set()
}

// release gives up a subscription and what came by it alone. r.mu is held.
func (r *Relay) release(t *relayed, name string) {
	t.unsubscribe(name)
	r.forget(t.id(name))
	names := []string{name}
	if name == xds.Wildcard {
		names = slices.Collect(maps.Keys(t.known))
	}
	var gone []xds.Update
	for _, n := range names {
		if _, ok := t.known[n]; ok && !t.covers(n) {
			delete(t.known, n)
			r.forgetEndpoints(t.id(n))
			gone = append(gone, xds.Gone(t.id(n)))
		}
	}
	r.cache.Apply(scope, gone)
	r.save.Set()
	r.changed()
}

// changed tells that Current may be another.
func (r *Relay) changed() {
	if r.opts.Changed != nil {
		r.opts.Changed()
	}
}

// forget a name that Envoy doesn't ask for any more. r.mu is held.
func (r *Relay) forget(id xds.ID) {
	r.demand.release(id)
	if isAddress(id) {
		r.room.forget(id.Name)
		r.countShared(0, 0)
	}
}

// apply puts a response of the operator into the local cache and returns it to be acknowledged. r.mu is held.
func (r *Relay) apply(t *relayed, nonce string, resources []*xds.Resource, removed []string) *received {
	in := &received{nonce: nonce, versions: map[string]string{}, waiting: map[string]struct{}{}}
	var updates []xds.Update
	toFit, changed, now := map[string]bool{}, map[string]bool{}, r.opts.Clock.Now()
	for _, res := range resources {
		name := res.Name()
		if !t.covers(name) || r.own[t.typeURL][name] {
			continue
		}
		res = r.limitEndpoints(res, toFit)
		changed[name] = true
		in.versions[name] = res.Version()
		k := t.known[name]
		res = k.asRenewed(res)
		if k != nil && k.rejected == res.Version() {
			in.errs = append(in.errs, name+": "+k.reason) // Envoy need not be asked again
			k.current = res
			continue
		}
		if k == nil {
			k = &known{}
			t.known[name] = k
		}
		before := k.current
		k.current, k.rejected, k.reason, k.told = res, "", "", notAcked
		if _, named := t.subscribed[name]; named && !r.noteNowhere(res, now) {
			continue // Envoy was told to forget it
		}
		r.noteContexts(res, before, now)
		in.waiting[name] = struct{}{}
		updates = append(updates, xds.Set(res))
	}
	for _, name := range removed {
		if r.own[t.typeURL][name] {
			continue
		}
		if _, named := t.subscribed[name]; named {
			t.known[name] = &known{}
		} else {
			delete(t.known, name)
		}
		r.forgetEndpoints(t.id(name))
		updates = append(updates, xds.Gone(t.id(name)))
	}
	r.cache.Apply(scope, r.reconsider(in, updates, changed))
	r.changed()
	r.countShared(0, 0)
	r.fit(slices.Sorted(maps.Keys(toFit)))
	if _, all := t.subscribed[xds.Wildcard]; all && !t.ready {
		t.ready = true
		r.cache.Ready(scope, t.typeURL)
	}
	if len(updates) > 0 {
		r.save.Set()
	}
	return in
}

// noteChanged takes from the local server that Envoy decided about a resource, came or went.
func (r *Relay) noteChanged(id xds.ID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for c := range r.waiters[id] {
		c.Set()
	}
	t, name := r.types[id.TypeURL], id.Name
	if t == nil {
		return
	}
	if k := t.known[name]; k != nil && k.current != nil {
		r.noteAck(t, name, k)
	}
	for _, in := range t.pending {
		if _, ok := in.waiting[name]; ok {
			r.settle(t, in, name)
		}
	}
	r.acknowledge(t)
}

// noteAck notes what Envoy made of the current version of a resource. r.mu is held.
func (r *Relay) noteAck(t *relayed, name string, k *known) {
	s := r.state(t.id(name))
	if s.Version != k.current.Version() {
		return // the last good version is served instead
	}
	switch text := s.Rejection(); {
	case text != "" && k.rejected != s.Version:
		k.rejected, k.reason = s.Version, text
		r.changed()
		if k.good != nil && !k.good.Equal(k.current) {
			r.cache.Apply(scope, []xds.Update{xds.Set(k.good)})
			r.save.Set()
		}
		r.correct(t, name, k, acked)
	case text == "" && len(s.Proxies) > 0 && s.Settled():
		k.good, k.rejected, k.reason = k.current, "", ""
		if t.typeURL == xds.TypeExtension && r.opts.Accepted != nil {
			r.opts.Accepted(name, k.current.Version(), k.current.Any())
		}
		r.correct(t, name, k, nacked)
	}
}

// correct asks the operator for a resource again if it was told otherwise about it: with the new response comes the
// opportunity for the right ACK or NACK. r.mu is held.
func (r *Relay) correct(t *relayed, name string, k *known, wrong outcome) {
	if k.told == wrong && t.opened {
		k.told = notAcked
		if _, named := t.subscribed[name]; !named {
			t.subscribed[name] = time.Now() // only a name can be asked for again; Linger ends it
		}
		t.toSubscribe[name] = struct{}{}
		r.wake.Set()
	}
}

// settle decides about one name of a response, if Envoy has. r.mu is held.
func (r *Relay) settle(t *relayed, in *received, name string) {
	k := t.known[name]
	if k == nil || k.current == nil || k.current.Version() != in.versions[name] {
		// Unsubscribed, removed, or replaced: there is nothing to say about this version any more.
		delete(in.waiting, name)
		return
	}
	r.noteAck(t, name, k)
	s := r.state(t.id(name))
	switch {
	case k.rejected == in.versions[name]:
		in.errs = append(in.errs, name+": "+k.reason)
	case s.Version == in.versions[name] && !s.Settled():
		return
	}
	delete(in.waiting, name)
}

// acknowledge turns decided responses into ACKs and NACKs. r.mu is held.
func (r *Relay) acknowledge(t *relayed) {
	open := t.pending[:0]
	for _, in := range t.pending {
		if len(in.waiting) > 0 {
			open = append(open, in)
			continue
		}
		t.acks = append(t.acks, ack{nonce: in.nonce, err: in.text()})
		for name, version := range in.versions {
			k := t.known[name]
			if k == nil || k.current == nil || k.current.Version() != version {
				continue
			}
			switch {
			case len(in.errs) == 0:
				k.told = acked
			case len(in.versions) == 1:
				k.told = nacked
			}
		}
		r.wake.Set()
	}
	t.pending = open
}

// text is empty for an ACK. A single resource's text is Envoy's own.
func (in *received) text() string {
	if len(in.errs) == 0 {
		return ""
	}
	errs := slices.Sorted(slices.Values(in.errs))
	if len(in.versions) == 1 {
		for name := range in.versions {
			return strings.TrimPrefix(errs[0], name+": ")
		}
	}
	if more := len(errs) - maxReported; more > 0 {
		return fmt.Sprintf("%s; and %d more", strings.Join(errs[:maxReported], "; "), more)
	}
	return strings.Join(errs, "; ")
}

// sweep ends the subscriptions that Envoy did not renew: it had Linger to ask again since it connected. r.mu is not
// held.
func (r *Relay) sweep(now time.Time) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, p := range r.server.Proxies() {
		if now.Sub(p.Connected) < r.opts.linger {
			continue
		}
		for _, t := range r.types {
			for name, orphaned := range t.subscribed {
				if !orphaned.IsZero() && now.Sub(orphaned) >= r.opts.linger {
					r.release(t, name)
				}
			}
		}
		r.wake.Set()
		return
	}
}
