// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"cmp"
	"context"
	"crypto/rand"
	"crypto/tls"
	"fmt"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Local is this replica's own book; xds.Server is one.
type Local interface {
	State(k xds.Key) xds.ResourceState
	OnChange(fn func(...xds.Key)) (cancel func())
	Proxies() []xds.ProxyState
}

// Options of a Book. Local, Interests and TLS are required.
type Options struct {
	Local Local
	// TLS serves and dials; it must verify the other end (identity.Authority.MutualConfig).
	TLS *tls.Config
	// Interests are told what proxies of other replicas have.
	Interests *Interests
	// OnNote is told what other replicas note, from several goroutines. It must not block.
	OnNote func(text string)
	// OnFact is told what other replicas tell by Tell, in the same way; the same fact may come again.
	OnFact func(text string)
	// listener to serve on; by default Start listens on names.PortPeers.
	listener net.Listener
	Log      logr.Logger

	// times are the package's own unless a test says else.
	times times
}

// times of the feed.
type times struct {
	// grace is how long the proxies of a replica that went silent still count: they connect to another one.
	grace time.Duration
	// heartbeat is the longest silence of a healthy feed; three of them are a failure.
	heartbeat time.Duration
	// postpone is how long a proxy is given to answer before others are told what they take to be so anyway.
	postpone time.Duration
	// age ends a feed, so that both ends authenticate anew.
	age time.Duration
	// retry and retryMax bound the pauses between attempts.
	retry, retryMax time.Duration
}

var defaultTimes = times{
	grace: 5 * time.Second, heartbeat: 3 * time.Second, postpone: 20 * time.Millisecond, age: time.Hour,
	retry: 100 * time.Millisecond, retryMax: 5 * time.Second,
}

// Book is the joint book of all replicas. Make it with New; Start serves and follows.
type Book struct {
	opts    Options
	replica string // tells this process from all others
	feed    *feed

	mu        sync.RWMutex
	remotes   map[*remote]struct{}
	following map[string]context.CancelFunc // by address
	follow    func(address string) context.CancelFunc
	listeners map[int]func(...xds.Key)
	next      int
}

// changesPerCall bounds what listeners are told of at once: they may hold a lock meanwhile.
const changesPerCall = 100

// remote is the book of another replica, as far as it was told. It is guarded by Book.mu.
type remote struct {
	address string
	entries entries
	// silent: the replica can't be heard, and its entries go after the time of grace. turn counts the changes.
	silent bool
	turn   int
	// left: the address is no replica any more.
	left bool
}

// entries are bounded by maxRecords.
type entries struct {
	of      map[xds.Key]entry
	records int
}

func newEntries() entries { return entries{of: map[xds.Key]entry{}} }

// put stores an entry, or removes one that says nothing any more. ok is false if it does not fit.
func (es *entries) put(e entry) (ok bool) {
	k := e.key()
	if old, had := es.of[k]; had {
		es.records -= old.records()
		delete(es.of, k)
	}
	if len(e.Proxies) == 0 {
		return true
	}
	if es.records+e.records() > maxRecords {
		return false
	}
	es.records += e.records()
	es.of[k] = e
	return true
}

// New returns a book that knows the local proxies only.
func New(o Options) *Book {
	if o.Log.GetSink() == nil {
		o.Log = logr.Discard()
	}
	if o.times == (times{}) {
		o.times = defaultTimes
	}
	if o.OnNote == nil {
		o.OnNote = func(string) {}
	}
	if o.OnFact == nil {
		o.OnFact = func(string) {}
	}
	b := &Book{
		opts: o, replica: rand.Text(),
		remotes: map[*remote]struct{}{}, following: map[string]context.CancelFunc{},
		listeners: map[int]func(...xds.Key){},
	}
	b.feed = newFeed(o.Local, b.replica, o.times, o.Log)
	return b
}

// NeedLeaderElection makes the manager run the book on every replica.
func (b *Book) NeedLeaderElection() bool { return false }

// Start serves the local book and follows the others until the context ends.
func (b *Book) Start(ctx context.Context) error {
	ln := b.opts.listener
	if ln == nil {
		var err error
		if ln, err = (&net.ListenConfig{}).Listen(ctx, "tcp", fmt.Sprintf(":%d", names.PortPeers)); err != nil {
			return fmt.Errorf("listen for other replicas: %w", err)
		}
	}
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return b.feed.serve(ctx, ln, b.opts.TLS) })
	b.start(ctx, group)
	return group.Wait()
}

// start lets SetPeers follow, from now until the context ends.
func (b *Book) start(ctx context.Context, group *errgroup.Group) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.follow = func(address string) context.CancelFunc {
		ctx, cancel := context.WithCancel(ctx)
		group.Go(func() error { b.run(ctx, address); return nil })
		return cancel
	}
	for address := range b.following {
		b.following[address] = b.follow(address)
	}
	group.Go(func() error {
		<-ctx.Done()
		b.mu.Lock()
		defer b.mu.Unlock()
		b.follow = nil
		return nil
	})
}

// SetPeers says which other replicas there are, as "ip:port". The proxies of one that is left out stay for the time of
// grace.
func (b *Book) SetPeers(addresses []string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for address, cancel := range b.following {
		if !slices.Contains(addresses, address) {
			if cancel != nil {
				cancel()
			}
			delete(b.following, address)
		}
	}
	for _, address := range addresses {
		if _, known := b.following[address]; known {
			continue
		}
		b.following[address] = nil
		if b.follow != nil {
			b.following[address] = b.follow(address)
		}
	}
}

// State returns what the connected proxies of all replicas made of the resource's version that is current here. Of a
// waypoint's cluster, and of a listener other than mtls, only those proxies of other replicas are told that reject it;
// of a cluster of all nodes, some, and those that are behind before others.
func (b *Book) State(k xds.Key) xds.ResourceState {
	out := b.opts.Local.State(k)
	b.mu.RLock()
	defer b.mu.RUnlock()
	at := map[string]int{}
	for i, a := range out.Proxies {
		at[a.Proxy.ID()] = i // so that one that moved to another replica is not two
	}
	for r := range b.remotes {
		e := r.entries.of[k]
		for _, p := range e.Proxies {
			a := p.judge(k.Scope, e.Version, out.Version)
			i, known := at[a.Proxy.ID()]
			switch {
			case !known:
				at[a.Proxy.ID()] = len(out.Proxies)
				out.Proxies = append(out.Proxies, a)
			case rank(a.State) > rank(out.Proxies[i].State):
				out.Proxies[i] = a
			}
		}
	}
	slices.SortFunc(out.Proxies, func(a, b xds.ProxyAck) int {
		return cmp.Or(cmp.Compare(a.Proxy.Pod, b.Proxy.Pod), cmp.Compare(a.Proxy.PodUID, b.Proxy.PodUID))
	})
	return out
}

// rank orders what two replicas say of one proxy, which was connected to one and is connected to the other: no clock is
// common to both. Whoever has seen it accept the current version is right, and a verdict says more than none.
func rank(s xds.AckState) int {
	switch s {
	case xds.Acked:
		return 2
	case xds.Rejected:
		return 1
	default:
		return 0
	}
}

// Note tells all other replicas, those that come later too. A note that all of them make again is told again, so only
// what is new to this replica is to be noted.
func (b *Book) Note(text string) { b.feed.note(text) }

// Tell has all other replicas know the latest fact about a subject, those that come later, too. Of facts that follow
// each other fast they may hear the last one only. Nothing is told about more subjects than there is room for. An empty
// fact is told to nobody any more.
func (b *Book) Tell(subject, fact string) { b.feed.tell(subject, fact) }

// OnChange calls fn whenever State of some resources may have changed here or on another replica. Calls may come at the
// same time; fn must not block. The returned function ends it; a call may still be under way then.
func (b *Book) OnChange(fn func(...xds.Key)) (cancel func()) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := b.next
	b.next++
	b.listeners[id] = fn
	local := b.opts.Local.OnChange(fn)
	return func() {
		local()
		b.mu.Lock()
		defer b.mu.Unlock()
		delete(b.listeners, id)
	}
}

// delta is what an exchange of entries did.
type delta struct{ changed, added, removed []xds.Key }

func (d *delta) note(k xds.Key, old, now entry) {
	had, has := len(old.Proxies) > 0, len(now.Proxies) > 0
	switch {
	case !had && !has, old.Version == now.Version && slices.Equal(old.Proxies, now.Proxies):
		return
	case !had:
		d.added = append(d.added, k)
	case !has:
		d.removed = append(d.removed, k)
	}
	d.changed = append(d.changed, k)
}

// tell passes a delta on. The lock is not held.
func (b *Book) tell(d delta) {
	for _, k := range d.added {
		b.opts.Interests.add(k)
	}
	b.mu.RLock()
	connected := map[xds.Scope]bool{}
	for r := range b.remotes {
		for _, k := range d.removed {
			if _, ok := r.entries.of[servingOf(k.Scope)]; ok {
				connected[k.Scope] = true
			}
		}
	}
	listeners := make([]func(...xds.Key), 0, len(b.listeners))
	for _, fn := range b.listeners {
		listeners = append(listeners, fn)
	}
	b.mu.RUnlock()
	for _, k := range d.removed {
		b.opts.Interests.remove(k, !connected[k.Scope])
	}
	for keys := range slices.Chunk(d.changed, changesPerCall) {
		for _, fn := range listeners {
			fn(keys...)
		}
	}
}

// replace exchanges all entries of a replica: its snapshot is complete, and it can be heard again.
func (b *Book) replace(r *remote, now entries) {
	var d delta
	b.mu.Lock()
	r.silent = false
	r.turn++
	for k, e := range now.of {
		d.note(k, r.entries.of[k], e)
	}
	for k, old := range r.entries.of {
		if _, ok := now.of[k]; !ok {
			d.note(k, old, entry{})
		}
	}
	r.entries = now
	b.mu.Unlock()
	b.tell(d)
}

// update exchanges some entries of a replica. ok is false if it says more than is kept.
func (b *Book) update(r *remote, es []entry) (ok bool) {
	var d delta
	ok = true
	b.mu.Lock()
	for _, e := range es {
		k := e.key()
		old := r.entries.of[k]
		ok = r.entries.put(e) && ok
		d.note(k, old, r.entries.of[k])
	}
	b.mu.Unlock()
	b.tell(d)
	return ok
}

// silence starts the time of grace of a replica that can't be heard, unless it runs already.
func (b *Book) silence(r *remote) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if r.silent || len(r.entries.of) == 0 {
		return
	}
	r.silent = true
	r.turn++
	turn := r.turn
	time.AfterFunc(b.opts.times.grace, func() { b.drop(r, turn) })
}

// drop forgets what a replica said, unless it has been heard since.
func (b *Book) drop(r *remote, turn int) {
	var d delta
	b.mu.Lock()
	if r.turn != turn {
		b.mu.Unlock()
		return
	}
	r.silent = false
	for k, old := range r.entries.of {
		d.note(k, old, entry{})
	}
	r.entries = newEntries()
	if r.left {
		delete(b.remotes, r)
	}
	b.mu.Unlock()
	b.opts.Log.Info("a replica has been silent for too long: its proxies no longer count", "replica", r.address)
	b.tell(d)
}

// join adds a replica of which nothing is known yet.
func (b *Book) join(address string) *remote {
	r := &remote{address: address, entries: newEntries()}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.remotes[r] = struct{}{}
	return r
}

// leave ends a replica's part in the book, after the time of grace.
func (b *Book) leave(r *remote) {
	b.silence(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	r.left = true
	if !r.silent {
		delete(b.remotes, r)
	}
}
