// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/internal/wake"
)

// stream serves one proxy. One goroutine (run) owns the protocol state and sends; another only receives. The cache
// reaches in through mark, which never waits for the proxy.
type stream struct {
	srv       *Server
	proxy     Proxy
	scope     *scope
	connected time.Time
	log       logr.Logger
	cancel    context.CancelCauseFunc

	wake  wake.Signal // there are marks
	marks struct {    // its lock is a leaf: nothing is called with it held
		sync.Mutex
		byKey map[ID]span
	}

	// mu guards the protocol state. run writes it; introspection reads. It is never held while sending.
	mu     sync.Mutex
	types  map[string]*subscription
	names  int // subscribed names over all types
	nonces uint64
	// refusalLogged and fullLogged: one line per stream is enough.
	refusalLogged, fullLogged bool
	// overdue is when next may have more to send although nothing happened; zero: never.
	overdue time.Time
}

// span is the range of revisions that a not yet sent change covers, and the time of its first.
type span struct {
	first, last uint64
	since       time.Time
}

// merge widens s by o; since stays the earliest that is set.
func (s span) merge(o span) span {
	if s.since.IsZero() || (!o.since.IsZero() && o.since.Before(s.since)) {
		s.since = o.since
	}
	return span{first: min(s.first, o.first), last: max(s.last, o.last), since: s.since}
}

func newStream(srv *Server, proxy Proxy, cancel context.CancelCauseFunc) *stream {
	st := &stream{
		srv: srv, proxy: proxy, cancel: cancel,
		scope:     srv.opts.Cache.attach(proxy.Scope),
		connected: time.Now(),
		log:       srv.opts.Log.WithValues("scope", proxy.Scope, "pod", proxy.Pod),
		wake:      wake.New(),
		types:     map[string]*subscription{},
	}
	st.marks.byKey = map[ID]span{}
	return st
}

// mark implements watcher.
func (st *stream) mark(marks []mark) {
	st.marks.Lock()
	for _, m := range marks {
		key, s := m.ID, span{first: m.rev, last: m.rev, since: m.at}
		if old, ok := st.marks.byKey[key]; ok {
			s = old.merge(s)
		}
		st.marks.byKey[key] = s
	}
	st.marks.Unlock()
	st.wake.Set()
}

// ageJitter is how many percent longer or shorter than Options.MaxAge a stream lives.
const ageJitter = 10

type adsStream = discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer

// run serves until the stream or ctx ends.
func (st *stream) run(ctx context.Context, g adsStream) error {
	requests, failed := make(chan *discoveryv3.DeltaDiscoveryRequest), make(chan error, 1)
	go func() {
		for {
			req, err := g.Recv()
			if err != nil {
				failed <- err
				return
			}
			select {
			case requests <- req:
			case <-ctx.Done():
				return
			}
		}
	}()
	st.log.V(1).Info("xDS stream opened", "address", st.proxy.Address)
	old, stop := st.aged()
	defer stop()
	for {
		st.absorb()
		if err := st.flush(g); err != nil {
			return err
		}
		var overdue <-chan time.Time
		if !st.overdue.IsZero() {
			overdue = time.After(time.Until(st.overdue))
		}
		select {
		case <-overdue:
		case req := <-requests:
			if err := st.handle(req); err != nil {
				return err
			}
		case <-st.wake:
		case <-old:
			return status.Error(codes.Aborted,
				"the stream has reached its maximum age: open another one, which authenticates the proxy again")
		case err := <-failed:
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		case <-ctx.Done():
			return context.Cause(ctx)
		}
	}
}

// aged fires when the stream is to end for its age, with jitter: proxies that came together must not go together.
func (st *stream) aged() (old <-chan time.Time, stop func()) {
	age := st.srv.opts.MaxAge
	if age == 0 {
		return nil, func() {}
	}
	timer := time.NewTimer(wait.Jitter(age*(100-ageJitter)/100, 2*ageJitter/100.))
	return timer.C, func() { timer.Stop() }
}

// flush sends all that may be sent now.
func (st *stream) flush(g adsStream) error {
	for {
		resp, r := st.next()
		if resp == nil {
			return nil
		}
		if err := g.Send(resp); err != nil {
			return err
		}
		m, kind, label := st.srv.metrics, st.proxy.Scope.kind(), typeLabel(resp.GetTypeUrl())
		m.responses.WithLabelValues(kind, label).Inc()
		m.bytes.WithLabelValues(kind, label).Add(float64(r.bytes))
		m.observePush(stageSent, resp.GetTypeUrl(), r.span.since, time.Now())
	}
}

// absorb moves the marks into the pending changes of the subscriptions.
func (st *stream) absorb() {
	st.marks.Lock()
	marks := st.marks.byKey
	if len(marks) == 0 {
		st.marks.Unlock()
		return
	}
	st.marks.byKey = map[ID]span{}
	st.marks.Unlock()

	st.mu.Lock()
	defer st.mu.Unlock()
	for key, s := range marks {
		sub := st.types[key.TypeURL]
		switch {
		case sub == nil:
		case key.Name == Wildcard:
			st.enqueueAll(sub)
		case sub.covers(key.Name):
			sub.enqueue(key.Name, s)
		}
	}
}

// enqueueAll puts everything that a wildcard covers, and everything that the client has, up for decision.
func (st *stream) enqueueAll(sub *subscription) {
	st.scope.mu.RLock()
	defer st.scope.mu.RUnlock()
	if t := st.scope.types[sub.typeURL]; t != nil && t.ready {
		sub.complete = sub.wildcard
		for name, e := range t.entries {
			sub.enqueue(name, span{first: e.created, last: e.changed})
			st.srv.book.noteChanged(st.scope.name.Key(sub.typeURL, name))
		}
	}
	for name := range sub.held {
		sub.enqueue(name, span{first: st.scope.rev, last: st.scope.rev})
	}
}

// enqueueNamed puts one name up for decision. What the client asks for itself counts as old as the resource is: a route
// that came with it, or after it, waits for it; an older one doesn't.
func (st *stream) enqueueNamed(sub *subscription, name string) {
	st.scope.mu.RLock()
	defer st.scope.mu.RUnlock()
	s := span{first: st.scope.rev, last: st.scope.rev}
	if e := st.scope.types[sub.typeURL].entry(name); e != nil {
		s.first, s.last = e.created, e.changed
	}
	sub.enqueue(name, s)
}

// close ends all subscriptions. run has returned.
func (st *stream) close() {
	st.mu.Lock()
	defer st.mu.Unlock()
	for url, sub := range st.types {
		for name, allowed := range sub.named {
			if allowed && st.scope.unsubscribe(ID{url, name}, st) {
				st.srv.interests.noteChanged(st.scope.name.Key(url, name), true)
			}
			st.srv.book.noteChanged(st.scope.name.Key(url, name))
		}
		if sub.wildcard {
			if st.scope.unsubscribe(ID{url, Wildcard}, st) {
				st.srv.interests.noteChanged(st.scope.name.Key(url, Wildcard), true)
			}
		}
		for name := range sub.held {
			st.srv.book.noteChanged(st.scope.name.Key(url, name))
		}
	}
	clear(st.types)
	st.srv.opts.Cache.detach(st.scope)
	st.log.V(1).Info("xDS stream closed", "address", st.proxy.Address)
}

// ack tells where the proxy stands with a version ("" for a resource that does not exist).
func (st *stream) ack(id ID, version string) ProxyAck {
	st.mu.Lock()
	defer st.mu.Unlock()
	a := ProxyAck{Proxy: st.proxy, State: Pending}
	sub := st.types[id.TypeURL]
	if sub == nil {
		return a
	}
	h := sub.held[id.Name]
	if h == nil {
		return a
	}
	a.Version = h.version
	a.Moving = (h.flying || h.unsure) && h.sent != version
	switch {
	case version != "" && h.rejected().version == version:
		a.State, a.Error = Rejected, h.rejected().text
	case a.Moving: // content that went and came back is not what the proxy has meanwhile, nor maybe of what it rejected
	case version != "" && h.version == version, version == "" && h.absent:
		a.State = Acked
	}
	return a
}

func (st *stream) snapshot() ProxyState {
	st.mu.Lock()
	defer st.mu.Unlock()
	p := ProxyState{Proxy: st.proxy, Connected: st.connected, Types: make(map[string]TypeState, len(st.types))}
	for url, sub := range st.types {
		t := TypeState{Wildcard: sub.wildcard, InFlight: sub.inflight != nil, Names: slices.Sorted(maps.Keys(sub.named))}
		for _, name := range slices.Sorted(maps.Keys(sub.held)) {
			h := sub.held[name]
			t.Resources = append(t.Resources, ResourceStatus{
				Name: name, Sent: h.sent, Acked: h.version, Rejected: h.rejected().version,
				Error: h.rejected().text,
			})
		}
		p.Types[url] = t
	}
	return p
}
