// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package neighbours

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"github.com/go-logr/logr"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// pause is between looks, so that what changes all the time doesn't keep agent and proxy busy.
	pause = 250 * time.Millisecond
	// settle bounds the wait for a proxy that doesn't answer. What it gets later, it gets in order.
	settle = 5 * time.Second
)

// table is the filter that the proxy has from here.
var table = xds.ID{TypeURL: xds.TypeExtension, Name: names.Neighbours}

// Proxy is the node proxy's configuration; relay.Relay is one.
type Proxy interface {
	// SetLocal sets resources; nil removes one.
	SetLocal(typeURL string, updates []xds.Update)
	// WaitSettled waits until no proxy that asks for a resource has yet to decide about it as it is set now.
	WaitSettled(ctx context.Context, id xds.ID) error
	// Current is what the operator says of a type, but what the proxy rejects.
	Current(typeURL string) map[string]*xds.Resource
}

// Keeper tells the proxy which addresses lead to neighbours.
type Keeper struct {
	proxy Proxy
	mark  proxymark.Mark
	log   logr.Logger
	wake  wake.Signal

	mu   sync.Mutex
	pods map[string]translatenode.Pod // by UID
	// held is what is about to change: no way may go by it.
	held map[xds.ID]int
	// ways are those that the proxy has been told, in a filter of that version.
	ways    []way
	version string

	dialled   read[upstream.Dialled]
	endpoints read[upstream.Takers]
	guards    read[bool]
}

// New knows no pods.
func New(proxy Proxy, mark proxymark.Mark, log logr.Logger) *Keeper {
	k := &Keeper{
		proxy: proxy, mark: mark, log: log, wake: wake.New(),
		pods: map[string]translatenode.Pod{}, held: map[xds.ID]int{},
		dialled:   read[upstream.Dialled]{of: upstream.ReadDialled},
		endpoints: read[upstream.Takers]{of: upstream.ReadTakers},
		guards:    read[bool]{of: letsEverybodyIn},
	}
	k.tell()
	return k
}

// Run keeps the proxy up to date until the context ends.
func (k *Keeper) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		}
		k.Look()
		if !wake.After(ctx, pause) {
			return nil
		}
	}
}

// Look brings the proxy up to date.
func (k *Keeper) Look() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tell()
}

// Changed says that the operator says something else. It never blocks.
func (k *Keeper) Changed() { k.wake.Set() }

// Captured takes in a pod that is captured and answers mTLS.
func (k *Keeper) Captured(p translatenode.Pod) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if before, known := k.pods[p.UID]; !known || !slices.Equal(before.IPs, p.IPs) {
		c := translatenode.ToNeighbours(p, k.mark)
		k.set(xds.TypeCluster, c.GetName(), func() (*xds.Resource, error) { return xds.NewResource(c.GetName(), c) })
	}
	k.pods[p.UID] = p
	k.wake.Set()
}

// Released returns when the proxy connects to a pod, and for it, as if it weren't of this node.
func (k *Keeper) Released(ctx context.Context, uid string) {
	k.mu.Lock()
	if _, known := k.pods[uid]; !known {
		k.mu.Unlock()
		return
	}
	delete(k.pods, uid)
	changed := k.tell()
	k.mu.Unlock()
	if changed {
		k.settled(ctx)
	}
}

// Forgotten is Released for a pod that is gone for good.
func (k *Keeper) Forgotten(ctx context.Context, uid string) {
	k.Released(ctx, uid)
	k.proxy.SetLocal(xds.TypeCluster, []xds.Update{
		xds.Gone(xds.ID{TypeURL: xds.TypeCluster, Name: translatenode.NeighboursCluster(uid)}),
	})
}

// Ahead is called before the proxy gets what is new of some resources, and returns when no way goes by what they say
// now. None will until done.
func (k *Keeper) Ahead(ctx context.Context, ids []xds.ID) (done func()) {
	k.mu.Lock()
	for _, id := range ids {
		k.held[id]++
	}
	concerned := slices.ContainsFunc(k.ways, func(w way) bool { return k.isHeld(w) })
	changed := concerned && k.tell()
	k.mu.Unlock()
	if changed {
		k.settled(ctx)
	}
	return func() {
		k.mu.Lock()
		defer k.mu.Unlock()
		for _, id := range ids {
			if k.held[id]--; k.held[id] == 0 {
				delete(k.held, id)
			}
		}
		k.wake.Set()
	}
}

// Ways are the addresses that lead to neighbours, with who these are.
func (k *Keeper) Ways() map[string][]string {
	k.mu.Lock()
	defer k.mu.Unlock()
	out := make(map[string][]string, len(k.ways))
	for _, w := range k.ways {
		for _, to := range w.To {
			out[w.Dialled] = append(out[w.Dialled], to.Pod.Namespace+"/"+to.Pod.Name)
		}
	}
	return out
}

func (k *Keeper) isHeld(w way) bool {
	return slices.ContainsFunc(w.by, func(id xds.ID) bool { return k.held[id] > 0 })
}

// settled waits for the proxy. One that rejects what it is told goes on by what it had, so it is told nothing then.
func (k *Keeper) settled(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	err := k.proxy.WaitSettled(ctx, table)
	if err == nil || ctx.Err() != nil {
		return
	}
	k.log.Error(err, "the proxy takes no connections between neighbours apart")
	k.mu.Lock()
	k.send(nil, nil)
	k.mu.Unlock()
	_ = k.proxy.WaitSettled(ctx, table)
}

// tell tells the proxy what there is to say now, and returns whether that is something new. k.mu is held.
func (k *Keeper) tell() bool {
	now := Known{Pods: slices.Collect(maps.Values(k.pods))}
	if len(now.Pods) > 1 {
		now.Dialled = k.dialled.all(k.proxy.Current(xds.TypeCluster))
		now.Endpoints = k.endpoints.all(k.proxy.Current(xds.TypeEndpoint))
		now.Open = map[string]bool{}
		for name, open := range k.guards.all(k.proxy.Current(xds.TypeExtension)) {
			if namespace, pod, ok := names.ParsePodAuthorization(name); ok {
				now.Open[namespace+"/"+pod] = open
			}
		}
	}
	return k.send(now.Pods, slices.DeleteFunc(ways(now), k.isHeld))
}

// send the filter to the proxy, unless it is what that has. k.mu is held.
func (k *Keeper) send(callers []translatenode.Pod, list []way) bool {
	k.ways = list
	var told []translatenode.Way
	for _, w := range list {
		told = append(told, w.Way)
	}
	if len(told) == 0 {
		callers = nil // so that pods which come and go are no change
	}
	filter := envoy.Extension(names.Neighbours, translatenode.Neighbours(callers, told))
	before := k.version
	k.set(xds.TypeExtension, names.Neighbours, func() (*xds.Resource, error) {
		r, err := xds.NewResource(names.Neighbours, filter)
		if err != nil || r.Version() == before {
			return nil, err
		}
		k.version = r.Version()
		return r, nil
	})
	return k.version != before
}

// set a resource, if there is one.
func (k *Keeper) set(typeURL, name string, build func() (*xds.Resource, error)) {
	r, err := build()
	if err != nil { // only a programming error gets here
		k.log.Error(err, "configuration of neighbours", "type", typeURL, "name", name)
	}
	if r != nil {
		k.proxy.SetLocal(typeURL, []xds.Update{xds.Set(r)})
	}
}

// read keeps what was read of resources, so that only new versions are.
type read[T any] struct {
	of   func(*anypb.Any) (T, error)
	have map[string]kept[T]
}

type kept[T any] struct {
	version string
	value   T
}

// all that can be read.
func (r *read[T]) all(resources map[string]*xds.Resource) map[string]T {
	now, out := make(map[string]kept[T], len(resources)), make(map[string]T, len(resources))
	for name, res := range resources {
		have, known := r.have[name]
		if !known || have.version != res.Version() {
			value, err := r.of(res.Any())
			if err != nil {
				continue
			}
			have = kept[T]{res.Version(), value}
		}
		now[name], out[name] = have, have.value
	}
	r.have = now
	return out
}

// letsEverybodyIn reads a guard. One that this version doesn't know doesn't; and what is only tried has to be counted.
func letsEverybodyIn(packed *anypb.Any) (bool, error) {
	config, filter := &corev3.TypedExtensionConfig{}, &netstatev3.Config{}
	if err := packed.UnmarshalTo(config); err != nil {
		return false, fmt.Errorf("guard: %w", err)
	}
	if err := config.GetTypedConfig().UnmarshalTo(filter); err != nil {
		return false, fmt.Errorf("another filter: %w", err)
	}
	return authorization.Unguarded(filter), nil
}
