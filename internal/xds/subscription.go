// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import "time"

// subscription is one resource type on one stream.
type subscription struct {
	typeURL string
	lane    lane

	wildcard bool
	// complete: everything that the wildcard covers was put up for decision, once the type was ready. Between the two, an
	// answer would be a partial one.
	complete bool
	// refused: a wildcard was asked for and not allowed; it is answered as empty.
	refused bool
	// answerDue: the client waits for a first answer to its wildcard, be it empty.
	answerDue bool
	// named maps each name subscribed to by itself to whether the proxy may have it.
	named map[string]bool
	// turnedAway are names that there was no room for: they are answered once as non-existent, and forgotten.
	turnedAway map[string]struct{}
	// held is what the client has, as far as it told us, by name.
	held map[string]*held
	// pending are names to decide about and perhaps to send; at most one entry per name, so changes coalesce. nil: none.
	pending map[string]span
	// isolating are parts of a rejected response, to be sent one after the other before anything else of the type.
	isolating []part
	// inflight is the response that awaits its ACK or NACK; there is at most one.
	inflight *response
}

// held is the client's side of one resource. There is one for each proxy and name, so what few have is elsewhere.
type held struct {
	version string // accepted last; empty if it has none
	sent    string // sent last
	// flying: what was sent last is not answered yet, so what the client has is not known.
	flying bool
	// rejection is of a version that the client refused: it is not sent again until the content changes.
	rejection *rejection
	// absent: the client knows that the resource does not exist.
	absent bool
	// unsure: the client asked again, or left a name that its wildcard may cover, so it must be told whatever it has.
	unsure bool
	// unused is since when nothing that the client has names it, and it is to go; nil: it isn't to go, or is still named.
	unused *time.Time
}

// rejection is a version that a client refused, and why.
type rejection struct{ version, text string }

// rejected is a version that the client refused, and why; empty where there is none.
func (h *held) rejected() rejection {
	if h.rejection == nil {
		return rejection{}
	}
	return *h.rejection
}

// part of a rejected response.
type part struct {
	names []string
	span  span
}

// response is what was sent and is not answered yet.
type response struct {
	nonce string
	items []item
	span  span
	bytes int
	// removal: it removes only, and belongs to the last lanes.
	removal bool
	sentAt  time.Time
}

type item struct {
	name    string
	version string // empty: removed, or does not exist
	// res is kept of extension configurations only; see extension.go.
	res *Resource
}

func newSubscription(typeURL string) *subscription {
	return &subscription{
		typeURL: typeURL,
		lane:    laneOf(typeURL),
		named:   map[string]bool{},

		turnedAway: map[string]struct{}{},
		held:       map[string]*held{},
	}
}

// covers tells whether the client wants to hear of the name.
func (sub *subscription) covers(name string) bool {
	if sub.wildcard {
		return true
	}
	_, ok := sub.named[name]
	return ok
}

func (sub *subscription) enqueue(name string, s span) {
	if old, ok := sub.pending[name]; ok {
		s = old.merge(s)
	}
	if sub.pending == nil {
		sub.pending = map[string]span{}
	}
	sub.pending[name] = s
}

// ensureHeld returns the client's side of a name, made if need be.
func (sub *subscription) ensureHeld(name string) *held {
	h := sub.held[name]
	if h == nil {
		h = &held{}
		sub.held[name] = h
	}
	return h
}

// action is what a name needs.
type action int

const (
	nothing action = iota
	upsert
	// answer tells a client that a resource that it never had does not exist: nothing depends on when.
	answer
	// remove takes something away that the client has: it comes last.
	remove
)

// covering tells whether the wildcard has effect: it is there, and its contents are known to be complete.
func (sub *subscription) covering(t *table) bool {
	return sub.wildcard && sub.complete && t != nil && t.ready
}

// decide compares what the client has with what the table holds. A resource that needs nothing is one that the client
// has.
func (sub *subscription) decide(t *table, name string) (action, *Resource) {
	h := sub.held[name]
	if h == nil {
		h = &held{}
	}
	allowed, named := sub.named[name]
	wild := sub.covering(t)
	e := t.entry(name)
	switch {
	case !named && !wild:
		return nothing, nil
	case named && !allowed, e != nil && e.res == nil, e == nil && !named:
		// Refused, known not to exist, or gone from a complete list.
		if allowed && sub.keeps(h) {
			return nothing, nil
		}
		return h.withoutResource(named), nil
	case e == nil:
		return nothing, nil // unknown yet: the client waits
	case !h.unsure && h.version == e.res.Version():
		return nothing, e.res
	case h.rejected().version == e.res.Version():
		if good := h.insteadOf(e); good != nil {
			return upsert, good
		}
		if !h.unsure {
			return nothing, nil
		}
	}
	return upsert, e.res
}

// withoutResource is what a client needs to hear about a resource that does not exist.
func (h *held) withoutResource(named bool) action {
	switch {
	case h.version != "" || h.rejection != nil:
		return remove
	case named && (h.unsure || !h.absent):
		return answer
	case h.unsure:
		return remove
	}
	return nothing
}
