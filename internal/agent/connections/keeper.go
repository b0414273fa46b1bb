// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"
	"unique"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
	"github.com/fairway-mesh/fairway/internal/wake"
)

const (
	// pause is between looks, so that who changes policies all the time doesn't keep the agent busy.
	pause = 50 * time.Millisecond
	// retry is after how long it is tried again to end what could not be ended.
	retry = 10 * time.Second
	// mostDeciders are kept, for pods that one change concerns mostly have the same guard.
	mostDeciders = 8
)

// Kernel resets connections in a pod's network namespace, by its path; kernel.Kernel is one, and for waypoints
// resets.Asker.
type Kernel interface {
	EndProxied(path string, connections []capture.Proxied) (ended int, err error)
}

// Places knows the paths of the network namespaces of a captured pod, by its namespace and name; pods.Follower is one.
type Places interface {
	Netns(pod string) []string
}

// Keeper keeps the connections of a node's pods in step with their guards, or those that a waypoint passes on as they
// are.
type Keeper struct {
	log logr.Logger
	// waypoint is the pod that all is about; "": it is said of each connection and guard.
	waypoint string
	read     func(*netstatev3.Config) (*authorization.Decider, error)

	now  func() time.Time
	wake wake.Signal
	// ofPod and inAll are mostOfPod and mostInAll, unless a test says else.
	ofPod, inAll int

	mu   sync.Mutex
	pods map[string]*podOf
	// room is who has the connections that are known, noRoom how often one wasn't kept, ended how many were.
	room          room
	noRoom, ended uint64

	// deciders by what they are made of, the last made last. Run's alone.
	deciders []decider
}

type decider struct {
	of string
	*authorization.Decider
}

// NewWaypoint is New for a waypoint's pod.
func NewWaypoint(log logr.Logger, pod string) *Keeper {
	k := New(log)
	k.waypoint, k.read = pod, authorization.NewTCPDecider
	return k
}

// New knows no connection.
func New(log logr.Logger) *Keeper {
	return &Keeper{
		log: log, read: authorization.NewDecider, now: time.Now, wake: wake.New(), ofPod: mostOfPod, inAll: mostInAll,
		pods: map[string]*podOf{}, room: newRoom(),
	}
}

// Run ends what guards refuse, until the context ends.
func (k *Keeper) Run(ctx context.Context, kernel Kernel, places Places) error {
	tick := time.NewTicker(envoy.RetellEvery)
	defer tick.Stop()
	later := time.NewTimer(0)
	defer later.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-k.wake:
		case <-later.C:
		case <-tick.C:
			k.forget(places)
			continue
		}
		for _, w := range k.due() {
			k.look(w, kernel, places)
		}
		if next := k.next(); !next.IsZero() {
			later.Reset(max(0, next.Sub(k.now())))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// work is what is to be asked about one pod.
type work struct {
	pod   string
	guard *guard
	open  []opened
}

// due takes what is to be done now.
func (k *Keeper) due() (out []work) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for name, p := range k.pods {
		again := !p.again.IsZero() && !now.Before(p.again)
		if p.guard == nil || !p.changed && !again && len(p.fresh) == 0 {
			continue
		}
		w := work{pod: name, guard: p.guard}
		if p.changed || again {
			for which, o := range p.fresh {
				if _, kept := p.open[which]; !kept {
					w.open = append(w.open, o)
				}
			}
			w.open = slices.AppendSeq(w.open, maps.Values(p.open))
			p.changed, p.again = false, time.Time{}
		} else {
			w.open = slices.Collect(maps.Values(p.fresh))
		}
		clear(p.fresh)
		if len(w.open) > 0 {
			out = append(out, w)
		}
	}
	// The order is the same each time for those who read the log, and has pods with the same guard behind each other.
	slices.SortFunc(out, func(a, b work) int {
		return cmp.Or(cmp.Compare(a.guard.version, b.guard.version), cmp.Compare(a.pod, b.pod))
	})
	return out
}

// next is when something is to be done that nobody wakes for; zero: never.
func (k *Keeper) next() (first time.Time) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, p := range k.pods {
		if !p.again.IsZero() && (first.IsZero() || p.again.Before(first)) {
			first = p.again
		}
	}
	return first
}

// look asks the guard of a pod about connections to it, and ends those that it refuses.
func (k *Keeper) look(w work, kernel Kernel, places Places) {
	d, err := k.decider(w.guard)
	if err != nil {
		k.log.Error(err, "connections that the pod's policies refuse now stay open", "pod", w.pod)
		k.passed(w, w.open)
		return
	}
	end, by, unknown := k.refused(d, w)
	if unknown != nil {
		k.log.Error(unknown, "some connections can't be asked about, and stay open", "pod", w.pod)
	}
	if len(end) == 0 {
		return
	}
	paths := places.Netns(w.pod)
	if len(paths) == 0 { // it is gone, or the agent has just started and doesn't know yet where it is
		k.again(w.pod)
		return
	}
	ended, failed := 0, error(nil)
	for _, path := range paths {
		n, err := kernel.EndProxied(path, end)
		ended += n
		if err != nil && !netns.Gone(err) {
			failed = err
		}
	}
	k.count(ended)
	if failed != nil {
		k.again(w.pod)
		k.log.Error(failed, "connections that the pod's policies refuse now stay open, trying again", "pod", w.pod)
	}
	if ended > 0 {
		k.log.Info("ended connections that the pod's policies refuse now", "pod", w.pod, "connections", ended,
			"refusedBy", slices.Sorted(maps.Keys(by)))
	}
}

func (k *Keeper) count(ended int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.ended += uint64(max(0, ended))
}

// again has a pod's connections asked about once more, later.
func (k *Keeper) again(pod string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if p := k.pods[pod]; p != nil {
		p.again = k.now().Add(retry)
	}
}

// decider of a guard, which may be that of the pod before.
func (k *Keeper) decider(g *guard) (*authorization.Decider, error) {
	config := &corev3.TypedExtensionConfig{}
	if err := g.packed.UnmarshalTo(config); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	of := string(config.GetTypedConfig().GetValue())
	at := slices.IndexFunc(k.deciders, func(d decider) bool { return d.of == of })
	if at >= 0 {
		return k.deciders[at].Decider, nil
	}
	filter := &netstatev3.Config{}
	if err := config.GetTypedConfig().UnmarshalTo(filter); err != nil {
		return nil, fmt.Errorf("guard: %w", err)
	}
	d, err := k.read(filter)
	if err != nil {
		return nil, err
	}
	if k.deciders = append(k.deciders, decider{of, d}); len(k.deciders) > mostDeciders {
		k.deciders = slices.Delete(k.deciders, 0, 1)
	}
	return d, nil
}

// refused are the connections that must go, and by has who refuses them. Of callers that the guard can't be asked
// about, unknown is why; theirs stay.
func (k *Keeper) refused(d *authorization.Decider, w work) (end []capture.Proxied, by map[string]bool, unknown error) {
	by = map[string]bool{}
	verdicts := map[unique.Handle[authorization.Caller]]string{}
	stay := w.open[:0]
	for _, o := range w.open {
		said, asked := verdicts[o.caller]
		if !asked {
			var err error
			if said, err = d.Verdict(o.caller.Value()); err != nil {
				unknown, said = err, ""
			}
			verdicts[o.caller] = said
		}
		if said == "" {
			stay = append(stay, o)
			continue
		}
		end = append(end, o.Proxied)
		by[said] = true
	}
	k.passed(w, stay)
	return end, by, unknown
}

// passed notes that a guard has let connections live, so that it isn't asked each time that they are told of.
func (k *Keeper) passed(w work, stay []opened) {
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pods[w.pod]
	if p == nil {
		return
	}
	for _, o := range stay {
		if now, open := p.open[o.key()]; open && now.caller == o.caller && now.began.Equal(o.began) {
			now.passed = w.guard
			p.open[o.key()] = now
		}
	}
}
