// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"cmp"
	"math"
	"slices"
	"strconv"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
)

// lane is the place of a type in the make-before-break order: what a lane brings may be used by later lanes, so later
// lanes wait until the earlier ones are acknowledged; and what is taken away is taken away last, users before what they
// use.
//
// Listeners come last, though it is for them that Envoy asks for scopes, and for those that it asks for routes: from
// then on a port that is new leads nowhere wrong, for its table is there. What Envoy has not asked for is not waited
// for.
//
// Extension configurations (of filters) come before all that leads to them: a policy is in force before the routes and
// ports that come with it. A listener that is new asks for its own when it is there, and waits for them
// (envoy.HTTPFilterByECDS).
//
// Clusters and endpoints share a lane: Envoy withholds its ACK of a CDS response until the clusters are warm, for which
// it needs their endpoints. That makes the ACK worth waiting for, and waiting for it before endpoints a deadlock.
type lane struct{ bring, take int }

// orderPatience bounds how long later lanes wait for the ACK of one response. A cluster that cannot warm (Envoy gives
// up after 15 s) must not hold up the routes of everyone else on the proxy for longer than that.
const orderPatience = 3 * time.Second

// defaultLingering is for how long a cluster stays that nothing names any more. A thread of Envoy takes a route table
// in a moment after it is acknowledged, and a request that has its route looks for the cluster when it leaves, or
// leaves again: after what filters ask about it (external authorization waits for 5 s at most). One that finds no
// cluster is answered 503.
const defaultLingering = 6 * time.Second

// free types depend on nothing in this order, such as secrets: they are sent at once, and no other waits.
const free = -1

func laneOf(typeURL string) lane {
	switch typeURL {
	case TypeCluster:
		return lane{bring: 0, take: 5}
	case TypeEndpoint:
		return lane{bring: 0, take: 6}
	case TypeExtension:
		return lane{bring: 1, take: 4}
	case TypeScopedRoute:
		return lane{bring: 2, take: 2}
	case TypeRoute, typeVirtualHost:
		return lane{bring: 3, take: 3}
	case TypeListener:
		return lane{bring: 4, take: 1}
	}
	return lane{bring: free, take: free}
}

// none is the floor when nothing is waited for.
const none = uint64(math.MaxUint64)

// work is what the pending names of a subscription need, decided against the cache.
type work struct {
	sub      *subscription
	table    *table
	upserts  []task
	answers  []task
	removals []task
}

type task struct {
	name string
	res  *Resource // nil: removed, or does not exist
	span span
}

// next picks one response that may be sent now, notes it as in flight, and returns it; nil if there is none.
//
// A change with revision r waits for everything of an earlier lane that is pending or in flight from a revision <= r.
// It does not wait for later changes, so a stream of endpoint updates never starves a route.
func (st *stream) next() (*discoveryv3.DeltaDiscoveryResponse, *response) {
	st.mu.Lock()
	defer st.mu.Unlock()
	st.scope.mu.RLock()
	defer st.scope.mu.RUnlock()

	works := make([]*work, 0, len(st.types))
	for _, sub := range st.types {
		works = append(works, sub.work(st.scope.types[sub.typeURL]))
	}
	st.overdue = time.Time{}
	if w, tasks := st.nextToBring(works); w != nil {
		return st.send(w.sub, tasks, false)
	}
	if w, tasks := st.nextToTake(works); w != nil {
		return st.send(w.sub, tasks, true)
	}
	return nil, nil
}

// nextToBring finds the first subscription, by lane, that may bring something. If any waits for the ACK of an earlier
// lane, st.overdue is when to try again.
func (st *stream) nextToBring(works []*work) (*work, []task) {
	slices.SortFunc(works, func(a, b *work) int {
		return cmp.Or(cmp.Compare(a.sub.lane.bring, b.sub.lane.bring), cmp.Compare(a.sub.typeURL, b.sub.typeURL))
	})
	limit, floor, lane := none, none, free // limit is from the lanes before this one, floor includes it
	now := time.Now()
	for _, w := range works {
		if w.sub.lane.bring != lane {
			limit, lane = floor, w.sub.lane.bring
		}
		if tasks, ok := w.bring(limit); ok {
			return w, tasks
		}
		if lane == free {
			continue
		}
		first, overdue := w.bringing(now)
		floor = min(floor, first)
		if !overdue.IsZero() {
			st.wakeAt(overdue)
		}
	}
	return nil, nil
}

// nextToTake finds the first subscription that may take something away: after all that was brought is acknowledged,
// however long that takes, and users before what they use.
func (st *stream) nextToTake(works []*work) (*work, []task) {
	floor := none
	for _, w := range works {
		if w.sub.lane.bring != free {
			first, _ := w.bringing(time.Time{})
			floor = min(floor, first)
		}
	}
	slices.SortFunc(works, func(a, b *work) int {
		return cmp.Or(cmp.Compare(a.sub.lane.take, b.sub.lane.take), cmp.Compare(a.sub.typeURL, b.sub.typeURL))
	})
	for _, w := range works {
		limit := floor
		if w.sub.lane.take == free {
			limit = none
		}
		if tasks := st.unused(w, below(w.removals, limit)); len(tasks) > 0 && w.sub.inflight == nil {
			return w, tasks
		}
		if w.sub.lane.take != free {
			floor = min(floor, w.taking())
		}
	}
	return nil, nil
}

// unused are the removals of which nothing can be under way any more; the rest have st.overdue. What a client asks for
// by name is answered at once, for no table names it. Nor does anything wait for relays, which have servers of their
// own.
func (st *stream) unused(w *work, removals []task) []task {
	if w.sub.typeURL != TypeCluster || st.srv.opts.Relays {
		return removals
	}
	now := time.Now()
	var out []task
	for _, k := range removals {
		if _, named := w.sub.named[k.name]; !named {
			h := w.sub.ensureHeld(k.name)
			if h.unused == nil {
				h.unused = &now
			}
			due := h.unused.Add(st.srv.opts.Lingering)
			if now.Before(due) {
				st.wakeAt(due)
				continue
			}
			k.span.since = due
		}
		out = append(out, k)
	}
	return out
}

// wakeAt has next asked again then, unless that is to be sooner.
func (st *stream) wakeAt(t time.Time) {
	if st.overdue.IsZero() || t.Before(st.overdue) {
		st.overdue = t
	}
}

// work decides about the pending names and forgets those that need nothing. Names in flight are decided about after
// their ACK or NACK; until then they only count as something to bring.
func (sub *subscription) work(t *table) *work {
	w := &work{sub: sub, table: t}
	for name, s := range sub.pending {
		act, res := sub.decide(t, name)
		if act == nothing && res != nil {
			sub.keepGood(t.entry(name), res)
		}
		k, h := task{name: name, res: res, span: s}, sub.held[name]
		if h != nil && act != remove {
			h.unused = nil
		}
		if h != nil && h.flying {
			if act == upsert {
				w.upserts = append(w.upserts, k)
			}
			continue
		}
		switch act {
		case upsert:
			w.upserts = append(w.upserts, k)
		case answer:
			w.answers = append(w.answers, k)
		case remove:
			w.removals = append(w.removals, k)
		case nothing:
			delete(sub.pending, name)
		}
	}
	if len(sub.pending) == 0 {
		sub.pending = nil // with the room for all that was asked for at the start
	}
	for name := range sub.turnedAway {
		w.answers = append(w.answers, task{name: name})
	}
	return w
}

// bring returns what of the subscription may be sent now, removals aside. ok with no tasks is an empty answer.
func (w *work) bring(floor uint64) (tasks []task, ok bool) {
	sub := w.sub
	if sub.inflight != nil {
		return nil, false
	}
	for len(sub.isolating) > 0 {
		p := sub.isolating[0]
		if tasks = sub.part(w.table, p); len(tasks) > 0 {
			return tasks, len(below(tasks, floor)) == len(tasks)
		}
		sub.isolating = sub.isolating[1:] // meanwhile gone or unsubscribed
	}
	tasks = append(below(w.upserts, floor), w.answers...)
	if len(tasks) > 0 {
		return tasks, true
	}
	return nil, sub.answerable(w.table) && len(w.upserts) == 0
}

// answerable tells whether a wildcard waits for its first answer, and can have it.
func (sub *subscription) answerable(t *table) bool {
	return sub.answerDue && (sub.refused || sub.covering(t))
}

// part decides anew about the names of a part: the latest content is sent, or nothing.
func (sub *subscription) part(t *table, p part) []task {
	var tasks []task
	for _, name := range p.names {
		act, res := sub.decide(t, name)
		if act == nothing {
			if res != nil {
				sub.keepGood(t.entry(name), res)
			}
			continue
		}
		s := p.span
		if newer, ok := sub.pending[name]; ok {
			s = s.merge(newer)
		}
		tasks = append(tasks, task{name: name, res: res, span: s})
	}
	return tasks
}

// bringing is the oldest revision that the subscription still has to bring and see acknowledged. A response that is in
// flight for longer than orderPatience doesn't count; overdue is when that will be. With a zero now it counts for ever.
func (w *work) bringing(now time.Time) (first uint64, overdue time.Time) {
	first = oldest(w.upserts)
	for _, p := range w.sub.isolating {
		first = min(first, p.span.first)
	}
	r := w.sub.inflight
	if r == nil || r.removal || len(r.items) == 0 {
		return first, overdue
	}
	due := r.sentAt.Add(orderPatience)
	if now.IsZero() || now.Before(due) {
		return min(first, r.span.first), due
	}
	return none, overdue
}

// taking is the oldest revision that the subscription still has to take away.
func (w *work) taking() uint64 {
	floor := oldest(w.removals)
	if r := w.sub.inflight; r != nil && r.removal {
		floor = min(floor, r.span.first)
	}
	return floor
}

func oldest(tasks []task) uint64 {
	floor := none
	for _, k := range tasks {
		floor = min(floor, k.span.first)
	}
	return floor
}

// below returns the tasks that need not wait for anything from floor on.
func below(tasks []task, floor uint64) []task {
	if floor == none {
		return tasks
	}
	var out []task
	for _, k := range tasks {
		if k.span.last < floor {
			out = append(out, k)
		}
	}
	return out
}

// send makes the response and notes it as in flight. What exceeds the size limit stays pending.
func (st *stream) send(sub *subscription, tasks []task, removal bool) (*discoveryv3.DeltaDiscoveryResponse, *response) {
	slices.SortFunc(tasks, func(a, b task) int { return cmp.Compare(a.name, b.name) })
	st.nonces++
	r := &response{nonce: strconv.FormatUint(st.nonces, 10), removal: removal, sentAt: time.Now()}
	resp := &discoveryv3.DeltaDiscoveryResponse{
		TypeUrl:           sub.typeURL,
		Nonce:             r.nonce,
		SystemVersionInfo: strconv.FormatUint(st.scope.rev, 10),
	}
	full := false
	for i, k := range tasks {
		if full = full || i > 0 && k.res != nil && r.bytes+k.res.size() > st.srv.opts.maxResponseBytes; full {
			sub.enqueue(k.name, k.span)
			continue
		}
		if k.res != nil {
			r.bytes += k.res.size()
			resp.Resources = append(resp.Resources, k.res.wire())
		} else {
			resp.RemovedResources = append(resp.RemovedResources, k.name)
		}
		sub.sending(r, k)
		if k.res != nil && !st.srv.opts.Relays {
			st.rewarm(k.res)
		}
	}
	if len(sub.isolating) > 0 && !removal {
		sub.isolating = sub.isolating[1:]
	}
	if sub.answerable(st.scope.types[sub.typeURL]) {
		sub.answerDue = false
	}
	sub.inflight = r
	return resp, r
}

// sending notes that a task is on its way.
func (sub *subscription) sending(r *response, k task) {
	it := item{name: k.name}
	if k.res != nil {
		it.version = k.res.Version()
	}
	if sub.typeURL == TypeExtension {
		it.res = k.res
	}
	h := sub.ensureHeld(k.name)
	h.sent, h.unsure, h.flying, h.unused = it.version, false, true, nil
	if len(r.items) == 0 {
		r.span = k.span
	} else {
		r.span = r.span.merge(k.span)
	}
	r.items = append(r.items, it)
	delete(sub.pending, k.name)
	delete(sub.turnedAway, k.name)
}

// rewarm sends the endpoints of a cluster again that the client has for another cluster, or for the one that this one
// replaces. Envoy makes a new cluster that stays in warming until it gets endpoints, yet does not ask for them: to its
// subscription they are nothing new.
func (st *stream) rewarm(res *Resource) {
	sub, name := st.types[TypeEndpoint], res.Endpoints()
	if sub == nil || name == "" {
		return
	}
	if _, named := sub.named[name]; !named {
		return
	}
	sub.ensureHeld(name).unsure = true
	s := span{first: st.scope.rev, last: st.scope.rev}
	if e := st.scope.types[TypeEndpoint].entry(name); e != nil {
		s.first, s.last = e.created, e.changed
	}
	sub.enqueue(name, s)
}
