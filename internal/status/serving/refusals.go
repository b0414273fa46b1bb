// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// countedEvery is how often what a status says of refused callers changes at most, however many there are.
const countedEvery = time.Minute

// newer is by how much a proxy's clock may be slow: a count that began before a policy did isn't of that policy.
const newer = time.Minute

// refusals are the callers that policies refused, or would have refused, by policy. Of whom a proxy may say something
// follows from what it has proved to be: a node's of the pods on it, a waypoint's of the policies that it carries out.
type refusals struct {
	touch func(model.ObjectRef)
	now   func() time.Time

	mu sync.Mutex
	of map[model.ObjectRef]*refused
	// at lists the policies that a waypoint carries out.
	at map[types.NamespacedName]map[model.ObjectRef]struct{}
}

// refused are the callers of one policy, in one generation of it.
type refused struct {
	uid        types.UID
	generation int64
	what       []*ingest.Enforcement

	since, last time.Time
	// connections and requests; anonymous are those of callers without identity.
	connections, requests, anonymous uint64
	caller                           string

	// said is the sentence that statuses have since saidAt; waking: they are looked at when it may change.
	said   string
	saidAt time.Time
	waking bool
}

func newRefusals(touch func(model.ObjectRef)) *refusals {
	return &refusals{
		touch: touch, now: time.Now, of: map[model.ObjectRef]*refused{},
		at: map[types.NamespacedName]map[model.ObjectRef]struct{}{},
	}
}

// follow counts for a policy from now on; for another generation anew. Other reports than a policy's are none.
func (r *refusals) follow(ref model.ObjectRef, report *ingest.Report) {
	r.mu.Lock()
	defer r.mu.Unlock()
	was := r.of[ref]
	if was != nil {
		for _, w := range waypointsOf(was.what) {
			if delete(r.at[w], ref); len(r.at[w]) == 0 {
				delete(r.at, w)
			}
		}
		delete(r.of, ref)
	}
	var what []*ingest.Enforcement
	if report != nil {
		for _, p := range report.Parents {
			if p.Enforcement != nil && p.Unprogrammed == nil {
				what = append(what, p.Enforcement)
			}
		}
	}
	if len(what) == 0 {
		return
	}
	if was == nil || was.uid != report.UID || was.generation != report.Generation {
		was = &refused{uid: report.UID, generation: report.Generation, since: r.now()}
	}
	was.what = what
	r.of[ref] = was
	for _, w := range waypointsOf(what) {
		if r.at[w] == nil {
			r.at[w] = map[model.ObjectRef]struct{}{}
		}
		r.at[w][ref] = struct{}{}
	}
}

func waypointsOf(what []*ingest.Enforcement) (out []types.NamespacedName) {
	for _, e := range what {
		for _, w := range e.Waypoints {
			out = append(out, w.Gateway)
		}
	}
	return out
}

// Counted takes in by how much what proxies count has grown.
func (e *Entries) Counted(grown []counts.Growth) {
	for _, g := range grown {
		if g.Kind.OfKeys() {
			e.keysTold(g)
			continue
		}
		if g.Kind != counts.Tried && g.Kind != counts.Refused {
			continue
		}
		if node, ok := catalogue.NodeOf(g.Scope); ok {
			ns, name, _ := strings.Cut(g.Destination, "/")
			pod := ingest.GuardedPod{Pod: cluster.Key{Namespace: ns, Name: name}, Node: node}
			for _, ref := range e.pods.users(pod) {
				e.refusals.add(ref, g, func(e *ingest.Enforcement) bool { return e.Pods != nil })
			}
		} else if gateway, ok := catalogue.WaypointOf(g.Scope); ok {
			for _, ref := range e.refusals.carriedOutBy(gateway) {
				e.refusals.add(ref, g, func(e *ingest.Enforcement) bool { return decidedAt(e, ref, gateway, g) })
			}
		}
	}
}

// users are the policies that are for a pod.
func (t *tallies) users(p ingest.GuardedPod) (out []model.ObjectRef) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for y := range t.with[guardOf(p)] {
		for ref := range y.users {
			if !slices.Contains(out, ref) {
				out = append(out, ref)
			}
		}
	}
	return out
}

func (r *refusals) carriedOutBy(gateway types.NamespacedName) (out []model.ObjectRef) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for ref := range r.at[gateway] {
		out = append(out, ref)
	}
	return out
}

// any tells whether something holds of what a policy is for one of its ancestors.
func (r *refusals) any(ref model.ObjectRef, holds func(*ingest.Enforcement) bool) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.of[ref]
	return n != nil && slices.ContainsFunc(n.what, holds)
}

// decidedAt tells whether a waypoint decides for a policy about the port that callers were counted for.
func decidedAt(e *ingest.Enforcement, ref model.ObjectRef, gateway types.NamespacedName, g counts.Growth) bool {
	ns, service, port, ok := names.ParseServicePort(g.Destination, "service")
	to := model.ServicePort{Namespace: ns, Service: service, Port: port}
	return ok && slices.ContainsFunc(e.Waypoints, func(w ingest.GuardingWaypoint) bool {
		if w.Gateway != gateway {
			return false
		}
		if g.Requests {
			return slices.Contains(w.Tables, to)
		}
		return w.TCP && ns == ref.Namespace
	})
}

// decides tells whether it is a policy that a verdict comes of: it is named, or one of those that don't allow.
func decides(e *ingest.Enforcement, ref model.ObjectRef, g counts.Growth) bool {
	if e.DryRun != (g.Kind == counts.Tried) {
		return false
	}
	if e.Deny {
		return model.DeniedBy(g.Verdict, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name})
	}
	level := model.LevelNetwork
	if e.Application {
		level = model.LevelApplication
	}
	return g.Verdict == model.GuardLevel{Name: level}.NoAllow() || g.Verdict == counts.ByExpressions && e.Application
}

// add to what is known of a policy, once, if it is one that refuses.
func (r *refusals) add(ref model.ObjectRef, g counts.Growth, concerns func(*ingest.Enforcement) bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.of[ref]
	if n == nil || g.First && g.Since.Before(n.since.Add(-newer)) {
		return
	}
	if !slices.ContainsFunc(n.what, func(e *ingest.Enforcement) bool { return concerns(e) && decides(e, ref, g) }) {
		return
	}
	if g.Requests {
		n.requests += g.Added
	} else {
		n.connections += g.Added
	}
	if g.Anonymous {
		n.anonymous += g.Added
	}
	if g.Last.After(n.last) {
		n.last, n.caller = g.Last, g.Caller
	}
	if n.waking {
		return
	}
	n.waking = true
	time.AfterFunc(max(0, n.saidAt.Add(countedEvery).Sub(r.now())), func() {
		r.mu.Lock()
		n.waking = false
		r.mu.Unlock()
		r.touch(ref)
	})
}

// say is the sentence for a policy's status. It stays for countedEvery, whoever else has the status written.
func (r *refusals) say(ref model.ObjectRef, dryRun bool) string {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := r.of[ref]
	if n == nil {
		return ""
	}
	if now := r.now(); n.saidAt.IsZero() || now.Sub(n.saidAt) >= countedEvery {
		if text := n.words(dryRun); text != n.said {
			n.said = text
			if n.connections+n.requests > 0 {
				n.saidAt = now
			}
		}
	}
	return n.said
}

func (n *refused) words(dryRun bool) string {
	since := minute(n.since)
	if !dryRun {
		if n.anonymous == 0 {
			return ""
		}
		return fmt.Sprintf("%s without identity refused since %s, the last at %s from %s",
			about(n.anonymous, "connection"), since, minute(n.last), n.caller)
	}
	var what []string
	if n.connections > 0 {
		what = append(what, about(n.connections, "connection"))
	}
	if n.requests > 0 {
		what = append(what, about(n.requests, "request"))
	}
	if len(what) == 0 {
		return "would have refused nobody since " + since
	}
	out := fmt.Sprintf("would have refused %s since %s, the last at %s from %s", strings.Join(what, " and "), since,
		minute(n.last), n.caller)
	if n.anonymous > 0 {
		out += fmt.Sprintf(" (%s of them without identity)", round(n.anonymous))
	}
	return out
}

func minute(t time.Time) string { return t.UTC().Format("2006-01-02 15:04 UTC") }

// about says how many there are, so that a status that is read again doesn't change for every one.
func about(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return round(n) + " " + what + "s"
}

// round to two digits from 100 on.
func round(n uint64) string {
	if n < 100 {
		return fmt.Sprint(n)
	}
	unit := uint64(1)
	for n/unit >= 100 {
		unit *= 10
	}
	return fmt.Sprintf("about %d", n/unit*unit)
}
