// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package enrol

import (
	"context"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/identity"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
)

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
	// identity is the one that is wanted of Certificates, for pod.
	identity string
	pod      identity.Pod
	// listening: the proxy has the listeners of target.
	listening bool
	// redirected: the pod's network namespace redirects to them.
	redirected bool
	// complete: the pod has answered mTLS since.
	complete bool
	// plaintextEnded: what came past the proxy before has ended at the ports where the pod, as it was then, refuses it.
	plaintextEnded *translatenode.Pod
	// plaintextAgain: more may have come since, through the proxy of the agent before.
	plaintextAgain bool
	// outboundEnded: closed, and what was open to outside of the mesh has ended.
	outboundEnded bool
	// refused is how many connections beyond the pod's limits the kernel had refused at the last look.
	refused capture.Refused
	// verified is when the kernel's rules were last compared.
	verified time.Time
	// releaseAt is when listeners go, once the redirect is gone.
	releaseAt time.Time
	// dead: the entry is forgotten; look it up again.
	dead bool
}

// entries are those of all pods that something was done for.
type entries struct {
	mu    sync.Mutex
	byUID map[string]*entry
}

// acquire returns the locked entry of a pod, made if need be.
func (s *entries) acquire(ctx context.Context, uid string) (*entry, error) {
	for {
		s.mu.Lock()
		e := s.byUID[uid]
		if e == nil {
			e = &entry{lock: make(lock, 1)}
			s.byUID[uid] = e
		}
		s.mu.Unlock()
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
func (s *entries) existing(ctx context.Context, uid string) (*entry, error) {
	s.mu.Lock()
	e := s.byUID[uid]
	s.mu.Unlock()
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
func (s *entries) drop(uid string, e *entry) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e.dead = true
	if s.byUID[uid] == e {
		delete(s.byUID, uid)
	}
}
