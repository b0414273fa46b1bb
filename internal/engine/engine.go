// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package engine wires the pipeline: watched objects go into the store, ingest decides what they mean, translate turns
// that into xDS resources, and the cache of the xDS server is given those that changed. One goroutine does all of it,
// so no stage takes a lock; what a change did not touch is not looked at.
package engine

import (
	"context"
	"net/netip"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/memo"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// graceAfterDisconnect is how long what a proxy wanted is kept up to date after it went away, if no other one wants it.
const graceAfterDisconnect = 5 * time.Minute

// Options of an Engine. The callbacks run on the engine's goroutine and must not block.
type Options struct {
	// Inbox that the engine takes in; a new one if nil.
	Inbox *Inbox
	Cache *xds.Cache
	Log   logr.Logger
	// OnReport is told what the status of a route or a policy is to say, and nil where that is gone.
	OnReport func(model.ObjectRef, *ingest.Report)
	// OnBinding is told which waypoint a Service is bound to; the zero Binding for none.
	OnBinding func(service types.NamespacedName, b ingest.Binding)
	// OnLeftOut is told which of a Service's endpoints proxies don't know.
	OnLeftOut func(service types.NamespacedName, out ingest.LeftOut)
	// OnAutomatic is told of every namespace, once it is known, whether it needs an automatic waypoint; and with known
	// false that the namespace is gone.
	OnAutomatic func(namespace string, needed, known bool)
	// OnRefused is told of the claims of pods to an address that don't count; empty once there are none any more.
	OnRefused func(netip.Addr, []ingest.RefusedClaim)
	// Registerer of the metrics; nil: they aren't exposed.
	Registerer prometheus.Registerer
	// Acks tells which route tables proxies reject; nil: nobody is asked.
	Acks Acknowledgements
	// OnRejection is told of each rule that proxies were found to reject, here or on another replica.
	OnRejection func(ingest.Rejection)
}

// Engine is the pipeline. Make it with New, run it with Run; what it is to take in goes to its Inbox.
type Engine struct {
	*Inbox

	opts    Options
	metrics *metrics

	// Everything below belongs to Run's goroutine.
	graph     *memo.Graph
	store     *cluster.Store
	ingest    *ingest.Ingest
	resources *resources
	scopes    map[xds.Scope]*scope
	synced    bool
	updates   map[xds.Scope][]xds.Update
	complete  []setRef  // wildcard sets that the next flush derives for the first time
	released  []xds.Key // no longer derived, so no longer to be served
	told      []func()  // callbacks held back until the cache has what they are about

	answered   map[xds.Key]bool             // route tables that proxies answered about since the last flush
	isolations map[xds.Scope]*isolation     // by scope, where a table is rejected
	accepted   map[string]*model.RouteTable // by name, as all proxies took it last
	givenUp    map[string]string            // by name, the version that no rule of it is to blame for
}

// New returns an engine with an empty store.
func New(o Options) *Engine {
	if o.Inbox == nil {
		o.Inbox = NewInbox()
	}
	if o.OnReport == nil {
		o.OnReport = func(model.ObjectRef, *ingest.Report) {}
	}
	if o.OnBinding == nil {
		o.OnBinding = func(types.NamespacedName, ingest.Binding) {}
	}
	if o.OnLeftOut == nil {
		o.OnLeftOut = func(types.NamespacedName, ingest.LeftOut) {}
	}
	if o.OnAutomatic == nil {
		o.OnAutomatic = func(string, bool, bool) {}
	}
	if o.OnRefused == nil {
		o.OnRefused = func(netip.Addr, []ingest.RefusedClaim) {}
	}
	if o.OnRejection == nil {
		o.OnRejection = func(ingest.Rejection) {}
	}
	e := &Engine{
		Inbox: o.Inbox, opts: o, metrics: newMetrics(o.Registerer), graph: memo.New(),
		scopes: map[xds.Scope]*scope{}, updates: map[xds.Scope][]xds.Update{},
		answered: map[xds.Key]bool{}, isolations: map[xds.Scope]*isolation{}, accepted: map[string]*model.RouteTable{},
		givenUp: map[string]string{},
	}
	e.store = cluster.NewStore(e.graph)
	e.ingest = ingest.New(e.graph, e.store, route.CheckRule)
	e.resources = newResources(e.graph, e.store, e.ingest, func(k xds.Key, err error) {
		e.opts.Log.Error(err, "failed to build a resource, leaving it out", "scope", k.Scope, "type", k.TypeURL, "name",
			k.Name)
	})
	e.resources.scoped.OnKept(func(k xds.Key, r *xds.Resource) {
		e.updates[k.Scope] = append(e.updates[k.Scope], xds.Update{ID: k.ID, Resource: r})
	})
	e.ingest.Claims.OnKept(func(addr netip.Addr, c ingest.Claims) { e.opts.OnRefused(addr, c.Refused) })
	return e
}

// Run processes what is queued until the context ends.
func (e *Engine) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-e.wake:
		}
		e.process()
	}
}

// process works the queue off: everything that is queued is taken in at once, then each value that it touched is
// derived once. Run calls it; only tests do, besides.
func (e *Engine) process() {
	for {
		objects, calls, since := e.take()
		if len(objects) == 0 && len(calls) == 0 {
			return
		}
		taken := time.Now()
		e.metrics.observe(stageQueued, since, taken)
		for _, o := range objects {
			e.change(o)
		}
		for _, f := range calls {
			f(e)
		}
		if e.synced {
			e.flush()
			for e.isolate() {
				e.flush()
			}
			e.metrics.observe(stageDerived, taken, time.Now())
		}
	}
}

func (e *Engine) change(o queued) {
	if o.recreated {
		e.change(queued{object: o.object, deleted: true})
	}
	key := client.ObjectKeyFromObject(o.object)
	before, _ := e.store.Pods.Get(nil, key)
	op := e.store.Set
	if o.deleted {
		op = e.store.Delete
	}
	if err := op(o.object); err != nil {
		e.opts.Log.Error(err, "ignored an object")
		return
	}
	switch object := o.object.(type) {
	case *corev1.Pod:
		e.watchAddresses(before)
		e.watchAddresses(object)
	case *corev1.Namespace:
		e.watchNamespace(key.Name, o.deleted)
	case *corev1.Service:
		e.watchService(key, o.deleted)
	default:
		if ref, ok := ingest.ReportRef(object); ok {
			e.watchReport(ref, o.deleted)
		}
	}
}

// watchAddresses follows the claims to a pod's addresses, as long as any pod makes one.
func (e *Engine) watchAddresses(pod *corev1.Pod) {
	if pod == nil {
		return
	}
	for _, ip := range pod.Status.PodIPs {
		addr, err := netip.ParseAddr(ip.IP)
		if err != nil {
			continue
		}
		claimed := len(e.store.Pods.By(nil, cluster.ByAddress, addr.String())) > 0
		switch watched := e.ingest.Claims.Watched(addr); {
		case claimed && !watched:
			e.ingest.Claims.Keep(addr)
		case !claimed && watched:
			e.ingest.Claims.Unwatch(addr)
			e.opts.OnRefused(addr, nil)
		}
	}
}

func (e *Engine) watchService(key types.NamespacedName, deleted bool) {
	if deleted {
		e.ingest.Bound.Unwatch(key)
		e.ingest.LeftOut.Unwatch(key)
		e.opts.OnBinding(key, ingest.Binding{})
		e.opts.OnLeftOut(key, ingest.LeftOut{})
	} else if !e.ingest.Bound.Watched(key) {
		e.ingest.Bound.Watch(key, func(b ingest.Binding) {
			e.told = append(e.told, func() { e.opts.OnBinding(key, b) })
		})
		e.ingest.LeftOut.Watch(key, func(out ingest.LeftOut) { e.opts.OnLeftOut(key, out) })
	}
}

func (e *Engine) watchReport(r model.ObjectRef, deleted bool) {
	if deleted {
		e.ingest.Report.Unwatch(r)
		e.opts.OnReport(r, nil)
	} else if !e.ingest.Report.Watched(r) {
		e.ingest.Report.Watch(r, func(report *ingest.Report) {
			e.told = append(e.told, func() { e.opts.OnReport(r, report) })
		})
	}
}

func (e *Engine) watchNamespace(name string, deleted bool) {
	if deleted {
		e.ingest.NeedsAutomatic.Unwatch(name)
		e.opts.OnAutomatic(name, false, false)
	} else if !e.ingest.NeedsAutomatic.Watched(name) {
		e.ingest.NeedsAutomatic.Watch(name, func(needed bool) { e.opts.OnAutomatic(name, needed, true) })
	}
}

// flush derives what changed and hands it to the cache, scope by scope.
func (e *Engine) flush() {
	e.graph.Flush()
	for name, updates := range e.updates {
		delete(e.updates, name)
		e.opts.Cache.Apply(name, updates)
	}
	released := e.released
	e.released = nil
	for _, k := range released {
		if !e.resources.scoped.Watched(k) { // wanted again meanwhile
			e.opts.Cache.Forget(k)
			e.unlearn(k)
		}
	}
	told := e.told
	e.told = nil
	for _, f := range told {
		f()
	}
	complete := e.complete
	e.complete = nil
	for _, k := range complete {
		e.opts.Cache.Ready(k.scope, k.typeURL)
	}
}
