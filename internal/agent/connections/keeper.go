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
	// settle is after how long the kernel is asked a second time for connections in plaintext: those that a thread of the
	// proxy had decided on by the guard before, and not connected yet.
	settle = 500 * time.Millisecond
	// pause is between looks, so that who changes policies all the time doesn't keep the agent busy.
	pause = 50 * time.Millisecond
	// retry is after how long it is tried again to end what could not be ended.
	retry = 10 * time.Second
	// mostDeciders are kept, for pods that one change concerns mostly have the same guard.
	mostDeciders = 8
)

// Kernel resets connections in a pod's network namespace, by its path; kernel.Kernel is one.
type Kernel interface {
	EndProxied(path string, mtls []capture.Proxied, refused func(port uint16) bool) (ended int, err error)
}

// Places knows the paths of the network namespaces of a captured pod, by its namespace and name; pods.Follower is one.
type Places interface {
	Netns(pod string) []string
}

// Keeper keeps the connections of a node's pods in step with their guards.
type Keeper struct {
	log  logr.Logger
	now  func() time.Time
	wake wake.Signal

	mu   sync.Mutex
	pods map[string]*podOf
	// open is how many connections are known, noRoom how often one wasn't kept, ended how many were.
	open          int
	noRoom, ended uint64

	// deciders by what they are made of, the last used last. Run's alone.
	deciders []decider
}

type decider struct {
	of string
	*authorization.Decider
}

// New knows no connection.
func New(log logr.Logger) *Keeper {
	return &Keeper{log: log, now: time.Now, wake: wake.New(), pods: map[string]*podOf{}}
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
	mtls  []opened
	// plaintext is asked about, too.
	plaintext bool
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
		w := work{pod: name, guard: p.guard, plaintext: p.changed || again}
		if w.plaintext {
			w.mtls = slices.Collect(maps.Values(p.byCaller))
		} else {
			for caller := range p.fresh {
				w.mtls = append(w.mtls, p.byCaller[caller])
			}
		}
		clear(p.fresh)
		switch {
		case p.changed:
			p.changed, p.again = false, now.Add(settle)
		case again:
			p.again = time.Time{}
		}
		out = append(out, w)
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

// look asks the guard of a pod about its connections, and ends those that it refuses.
func (k *Keeper) look(w work, kernel Kernel, places Places) {
	paths := places.Netns(w.pod)
	if len(paths) == 0 { // it is gone, or the agent has just started and doesn't know yet where it is
		k.again(w.pod)
		return
	}
	d, err := k.decider(w.guard)
	if err != nil {
		k.log.Error(err, "connections that the pod's policies refuse now stay open", "pod", w.pod)
		return
	}
	if d.Open() {
		return
	}
	asked := verdicts{decider: d, known: map[authorization.Caller]string{}, by: map[string]int{}}
	end := asked.refused(w.mtls)
	var plaintext func(uint16) bool
	if w.plaintext {
		plaintext = asked.refusesPlaintext
	}
	if len(end) == 0 && plaintext == nil {
		return
	}
	ended, failed := 0, error(nil)
	for _, path := range paths {
		n, err := kernel.EndProxied(path, end, plaintext)
		ended += n
		if err != nil && !netns.Gone(err) {
			failed = err
		}
	}
	k.mu.Lock()
	k.ended += uint64(ended) //nolint:gosec // a count
	k.mu.Unlock()
	if asked.err != nil {
		k.log.Error(asked.err, "some connections can't be asked about, and stay open", "pod", w.pod)
	}
	if failed != nil {
		k.again(w.pod)
		k.log.Error(failed, "connections that the pod's policies refuse now stay open, trying again", "pod", w.pod)
	}
	if ended > 0 {
		k.log.Info("ended connections that the pod's policies refuse now", "pod", w.pod, "sockets", ended,
			"refusedBy", slices.Sorted(maps.Keys(asked.by)))
	}
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
	d, err := authorization.NewDecider(filter)
	if err != nil {
		return nil, err
	}
	if k.deciders = append(k.deciders, decider{of, d}); len(k.deciders) > mostDeciders {
		k.deciders = slices.Delete(k.deciders, 0, 1)
	}
	return d, nil
}

// verdicts of a guard, each caller asked about once.
type verdicts struct {
	decider *authorization.Decider
	known   map[authorization.Caller]string
	// by has who refused somebody. Nobody is refused by err.
	by  map[string]int
	err error
}

func (v *verdicts) refuses(c authorization.Caller) bool {
	said, known := v.known[c]
	if !known {
		var err error
		if said, err = v.decider.Verdict(c); err != nil {
			v.err, said = err, ""
		}
		v.known[c] = said
	}
	if said != "" {
		v.by[said]++
	}
	return said != ""
}

func (v *verdicts) refusesPlaintext(port uint16) bool {
	return v.refuses(authorization.Caller{Port: port})
}

// refused are the connections that must go.
func (v *verdicts) refused(mtls []opened) (out []capture.Proxied) {
	for _, o := range mtls {
		if o.identity.Value() == "" || !v.refuses(authorization.Caller{
			Identity: o.identity.Value(), ServerName: o.asked.Value(),
		}) {
			continue
		}
		out = append(out, o.Proxied)
	}
	return out
}
