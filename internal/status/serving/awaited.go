// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// awaited tells which statuses an answer of proxies is news to. A route table, or the listener of a waypoint, is what
// routes by the thousand depend on, and an edit of one of these has it sent and acknowledged anew: to the others that
// is nothing new.
type awaited struct {
	// said is what proxies said last of a resource, when all had answered, and statuses were looked at for it.
	said map[xds.Key]string
	// late are resources of which answers are missing, and that are looked at soon.
	late map[xds.Key]bool
	// waits are the objects whose status lacks answers, says that one is a rejection, or is being made.
	waits map[model.ObjectRef]struct{}
}

func newAwaited() awaited {
	return awaited{said: map[xds.Key]string{}, late: map[xds.Key]bool{}, waits: map[model.ObjectRef]struct{}{}}
}

// Acknowledged says that proxies answered, came or went; it is for xds.Server.OnChange.
func (e *Entries) Acknowledged(keys ...xds.Key) {
	e.pods.acknowledged(keys...)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, k := range keys {
		if e.links.used(k) {
			e.answered(k)
		}
	}
}

// answered looks at the statuses that what proxies say of a resource is news to. While answers are missing it is none:
// a status that serves is held then, for a while. The lock is held.
func (e *Entries) answered(k xds.Key) {
	said, all := statement(k, e.acks.State(k))
	switch {
	case !all && !e.awaited.late[k]:
		e.awaited.late[k] = true
		time.AfterFunc(patience, func() { e.overdue(k) })
	case !all:
	case said != e.awaited.said[k]:
		e.awaited.said[k] = said
		for ref := range e.links.users(k) {
			e.look(ref)
		}
	default:
		for ref := range e.awaited.waits {
			if e.links.uses(ref, k) {
				e.look(ref)
			}
		}
	}
}

// overdue has all statuses of a resource looked at, if answers are still missing.
func (e *Entries) overdue(k xds.Key) {
	e.mu.Lock()
	defer e.mu.Unlock()
	delete(e.awaited.late, k)
	if _, all := statement(k, e.acks.State(k)); all {
		return
	}
	delete(e.awaited.said, k)
	for ref := range e.links.users(k) {
		e.look(ref)
	}
}

// look at a status; at that of an AuthorizationPolicy soon. The lock is held.
func (e *Entries) look(ref model.ObjectRef) {
	switch soon, enforced := e.enforced[ref]; {
	case !enforced:
		e.Touch(ref)
	case !soon: // it may need tables by the hundred
		e.enforced[ref] = true
		time.AfterFunc(calm, func() { e.again(ref) })
	}
}

// waits notes whether an object's status is looked at whenever all have answered; see awaited.waits.
func (e *Entries) waits(ref model.ObjectRef, is bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if is {
		e.awaited.waits[ref] = struct{}{}
	} else {
		delete(e.awaited.waits, ref)
	}
}

// statement is all that a status takes of what proxies say of a resource, and whether all have answered.
func statement(k xds.Key, s xds.ResourceState) (said string, all bool) {
	parts := []string{s.Rejection()}
	gateway, ok := catalogue.WaypointOf(k.Scope)
	serving := ok && k == catalogue.Serving(gateway)
	ready := catalogue.Ready(s)
	all = true
	for _, a := range s.Proxies {
		id := a.Proxy.ID()
		switch {
		case serving: // with any version
			if !ready[id] {
				continue
			}
		case a.State == xds.Pending:
			all = false
		}
		if a.State == xds.Rejected {
			id += " " + a.Error
		}
		parts = append(parts, id)
	}
	slices.Sort(parts)
	return strings.Join(parts, "\x00"), all
}
