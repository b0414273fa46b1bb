// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"cmp"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
)

// keys is how the proxies of waypoints fare with keys of tokens that they fetch, as their agents told last. A proxy is
// believed about policies that its waypoint carries out, and while it serves.
type keys struct {
	now func() time.Time

	mu    sync.Mutex
	of    map[counts.Source]map[string]*fetched // by the source of keys
	swept time.Time
}

// fetched is the row of like outcomes that began last.
type fetched struct {
	row counts.Count
	// heard is when it was told of last, worded when what statuses say of it changed last.
	heard, worded time.Time
}

func newKeys() *keys { return &keys{now: time.Now, of: map[counts.Source]map[string]*fetched{}} }

// take in what an agent tells, and say whether statuses have to say something else. Other errors of a server that still
// gives no keys are said no more often than countedEvery.
func (k *keys) take(g counts.Growth) (changed bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	k.sweep(now)
	of := k.of[g.Source]
	if of == nil {
		of = map[string]*fetched{}
		k.of[g.Source] = of
	}
	f := of[g.Destination]
	if f != nil && g.Since.Before(f.row.Since) {
		return false // it is told again of a row before
	}
	turned := f == nil || f.row.Kind != g.Kind || !f.row.Since.Equal(g.Since)
	if turned {
		f = &fetched{worded: now}
		of[g.Destination] = f
	}
	f.heard = now
	if !turned && (f.row.Why == g.Why || now.Sub(f.worded) < countedEvery) {
		return false
	}
	f.row, f.worded = g.Count, now
	return true
}

// sweep forgets what nobody tells of any more. The lock is held.
func (k *keys) sweep(now time.Time) {
	if now.Sub(k.swept) < counts.Idle/4 {
		return
	}
	k.swept = now
	for from, of := range k.of {
		for source, f := range of {
			if now.Sub(f.heard) > counts.Idle {
				delete(of, source)
			}
		}
		if len(of) == 0 {
			delete(k.of, from)
		}
	}
}

// lacking are the proxies of waypoints that have no keys of a source, or old ones.
type lacking struct {
	proxies int
	// gateway is the waypoint of the proxy for which it is so the longest, and row what that has told.
	gateway model.PolicyName
	row     counts.Count
}

// at counts those of the waypoints that carry a policy out.
func (k *keys) at(source string, kind counts.Kind, of []ingest.GuardingWaypoint, acks Acknowledgements) (out lacking) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, w := range of {
		proxies := catalogue.Ready(acks.State(catalogue.Serving(w.Gateway)))
		for proxy := range proxies {
			f := k.of[counts.Source{Scope: catalogue.WaypointScope(w.Gateway), Proxy: proxy}][source]
			if f == nil || f.row.Kind != kind {
				continue
			}
			older := f.row.Since.Compare(out.row.Since)
			if out.proxies == 0 || older < 0 || older == 0 && cmp.Less(f.row.Why, out.row.Why) {
				out.gateway, out.row = w.Gateway, f.row
			}
			out.proxies++
		}
	}
	return out
}

// say what is to be said of the keys of a policy: where there never were any, and where they are old.
func (k *keys) say(e *ingest.Enforcement, acks Acknowledgements) (missing, stale string) {
	var none, old []string
	for _, from := range e.Keys {
		server := fmt.Sprintf("port %d of Service %s", from.Server.Port, from.Server.ServiceName())
		if l := k.at(from.Source, counts.KeysMissing, e.Waypoints, acks); l.proxies > 0 {
			none = append(none, fmt.Sprintf("provider %s: %s has given no keys to %s since %s: %s; until it answers the uri "+
				"of jwks.remote with 200 and a set of public keys (RFC 7517, %d KiB at most), requests with tokens of the "+
				"provider are refused there", from.Provider, server, l.who(), minute(l.row.Since), l.row.Why, model.MostKeys>>10))
		}
		if l := k.at(from.Source, counts.KeysStale, e.Waypoints, acks); l.proxies > 0 {
			old = append(old, fmt.Sprintf("provider %s: %s has no newer keys of %s since %s: %s; the keys from before stay good",
				from.Provider, l.who(), server, minute(l.row.Since), l.row.Why))
		}
	}
	return sentences(none...), sentences(old...)
}

func (l lacking) who() string {
	if l.proxies == 1 {
		return fmt.Sprintf("a proxy of waypoint %s", l.gateway)
	}
	return fmt.Sprintf("%d proxies, first of waypoint %s", l.proxies, l.gateway)
}

// keysTold has the policies look again whose keys a proxy tells of.
func (e *Entries) keysTold(g counts.Growth) {
	gateway, ok := catalogue.WaypointOf(g.Scope)
	if !ok || !e.keys.take(g) {
		return
	}
	for _, ref := range e.refusals.carriedOutBy(gateway) {
		if e.refusals.any(ref, func(e *ingest.Enforcement) bool {
			return slices.ContainsFunc(e.Keys, func(f ingest.FetchedKeys) bool { return f.Source == g.Destination })
		}) {
			e.Touch(ref)
		}
	}
}
