// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

// State of a pod on this node.
type State string

// States.
const (
	// StateNotCaptured: the pod isn't to be captured; the reason says why.
	StateNotCaptured State = "NotCaptured"
	// StateWaiting: the pod is to be captured and has no network yet.
	StateWaiting State = "Waiting"
	// StateEnrolling: listeners and certificate are being made; traffic isn't redirected yet.
	StateEnrolling State = "Enrolling"
	// StateStarting: traffic is redirected, and the pod doesn't answer mTLS yet.
	StateStarting State = "Starting"
	// StateCaptured: all is in place.
	StateCaptured State = "Captured"
	// StateReleasing: traffic is no longer redirected; senders may still use mTLS for a moment.
	StateReleasing State = "Releasing"
	// StateFailed: the last attempt failed; another follows.
	StateFailed State = "Failed"
)

// States are all of them.
var States = []State{
	StateNotCaptured, StateWaiting, StateEnrolling, StateStarting, StateCaptured, StateReleasing, StateFailed,
}

// PodStatus is how one pod stands, for people and for the agent's introspection.
type PodStatus struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	UID       string `json:"uid"`
	State     State  `json:"state"`
	// Reason is a word, Message says more.
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
	// Mode is names.MTLSStrict or names.MTLSPermissive, of pods that are to be captured.
	Mode string `json:"mode,omitempty"`
	// Netns is the path of the pod's network namespace, where known.
	Netns    string `json:"netns,omitempty"`
	Identity string `json:"identity,omitempty"`
	// Since is when the pod got into this state.
	Since time.Time `json:"since"`
}

// lock is a mutex that a context can give up on.
type lock chan struct{}

func (l lock) lock(ctx context.Context) error {
	select {
	case l <- struct{}{}:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (l lock) unlock() { <-l }

// entry is what the agent did for one pod.
type entry struct {
	lock lock // held while something is done for the pod; it guards what follows
	// target is what was programmed last; its zero value is nothing.
	target Target
	// identity is the one that is wanted of Certificates.
	identity string
	// listening: the proxy has the listeners of target.
	listening bool
	// redirected: the pod's network namespace redirects to them.
	redirected bool
	// complete: the pod has answered mTLS since.
	complete bool
	// closed: strict, and what came past the proxy before has ended.
	closed bool
	// refused is how many connections beyond the pod's limits the kernel had refused at the last look.
	refused capture.Refused
	// verified is when the kernel's rules were last compared.
	verified time.Time
	// releaseAt is when listeners go, once the redirect is gone.
	releaseAt time.Time
	// dead: the entry is forgotten; look it up again.
	dead bool
}

// registry holds the pods that something was done for, and the status of all.
type registry struct {
	mu      sync.Mutex
	entries map[string]*entry    // by UID
	status  map[string]PodStatus // by UID
	changed func()
}

func newRegistry() *registry {
	return &registry{entries: map[string]*entry{}, status: map[string]PodStatus{}, changed: func() {}}
}

// acquire returns the locked entry of a pod, made if need be.
func (r *registry) acquire(ctx context.Context, uid string) (*entry, error) {
	for {
		r.mu.Lock()
		e := r.entries[uid]
		if e == nil {
			e = &entry{lock: make(lock, 1)}
			r.entries[uid] = e
		}
		r.mu.Unlock()
		if err := e.lock.lock(ctx); err != nil {
			return nil, err
		}
		if !e.dead {
			return e, nil
		}
		e.lock.unlock()
	}
}

// existing is acquire for an entry that is there; nil if there is none.
func (r *registry) existing(ctx context.Context, uid string) (*entry, error) {
	r.mu.Lock()
	e := r.entries[uid]
	r.mu.Unlock()
	if e == nil {
		return nil, nil
	}
	if err := e.lock.lock(ctx); err != nil {
		return nil, err
	}
	if e.dead {
		e.lock.unlock()
		return nil, nil
	}
	return e, nil
}

// drop forgets an entry; its lock is held.
func (r *registry) drop(uid string, e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	e.dead = true
	if r.entries[uid] == e {
		delete(r.entries, uid)
	}
}

// set notes a pod's status; Since is kept while the state stays.
func (r *registry) set(s PodStatus) {
	r.mu.Lock()
	old, ok := r.status[s.UID]
	if s.Since = time.Now(); ok && old.State == s.State {
		s.Since = old.Since
	}
	changed := old != s
	r.status[s.UID] = s
	r.mu.Unlock()
	if changed {
		r.changed()
	}
}

// unset forgets a pod's status.
func (r *registry) unset(uid string) {
	r.mu.Lock()
	_, ok := r.status[uid]
	delete(r.status, uid)
	r.mu.Unlock()
	if ok {
		r.changed()
	}
}

// uids of the pods that something was done for or whose status is known, by namespace and name.
func (r *registry) uids(namespace, name string) []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []string
	for uid, s := range r.status {
		if s.Namespace == namespace && s.Name == name {
			out = append(out, uid)
		}
	}
	return out
}

// snapshot is the status of all pods, by namespace and name.
func (r *registry) snapshot() []PodStatus {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]PodStatus, 0, len(r.status))
	for _, s := range r.status {
		out = append(out, s)
	}
	slices.SortFunc(out, func(a, b PodStatus) int {
		return strings.Compare(a.Namespace+"/"+a.Name+"/"+a.UID, b.Namespace+"/"+b.Name+"/"+b.UID)
	})
	return out
}
