// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// calm is how often answers about a policy that many proxies carry out are looked at while more are awaited. The last
// one about a set of pods is at once.
const calm = 100 * time.Millisecond

// tallies count how far the nodes' proxies are with what guards pods, by set of pods. An answer costs a look at one
// pod, however many the set has and however many policies are for it.
type tallies struct {
	acks  Acknowledgements
	touch func(model.ObjectRef)

	mu sync.Mutex
	of map[string]*tally // by the name of the set
	// with lists the sets that have a pod, by what guards the pod.
	with map[xds.Key]map[*tally]struct{}
}

// tally is the count of one set.
type tally struct {
	pods  *ingest.GuardedPods
	users map[model.ObjectRef]struct{}
	nodes int
	at    map[xds.Key]standing
	count map[stance]int
	// stale: a policy was edited, and not all that is in at was looked at since.
	stale bool
	// soon is when users are touched; nil: not before something changes.
	soon *time.Timer
}

// stance of what guards a pod.
type stance int

const (
	// unknown: no proxy of the node is connected; it may run on with anything.
	unknown stance = iota
	// behind: a proxy decides, or may decide, by another version.
	behind
	// closed: the proxy has no version yet, so it lets nobody in.
	closed
	// guarded by the current version.
	guarded
	// rejected: a proxy refuses the current version.
	rejected
)

type standing struct {
	stance
	// text is the whole sentence about a rejection.
	text string
}

func newTallies(acks Acknowledgements, touch func(model.ObjectRef)) *tallies {
	return &tallies{acks: acks, touch: touch, of: map[string]*tally{}, with: map[xds.Key]map[*tally]struct{}{}}
}

// guardOf is what guards a pod at its node.
func guardOf(p ingest.GuardedPod) xds.Key {
	return catalogue.NodeScope(p.Node).Key(xds.TypeExtension, names.PodAuthorization(p.Pod.Namespace, p.Pod.Name))
}

// follow has the sets of a report counted for it, and no others. After an edit of its object what proxies said before
// is no answer: that they have yet to answer may be heard of later than the report.
func (t *tallies) follow(ref model.ObjectRef, before, now []*ingest.GuardedPods, edited bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	named := map[string]bool{}
	for _, pods := range now {
		named[pods.Name] = true
		y := t.of[pods.Name]
		if y == nil {
			y = &tally{users: map[model.ObjectRef]struct{}{}, at: map[xds.Key]standing{}, count: map[stance]int{}}
			t.of[pods.Name] = y
		} else if edited {
			y.stale = true
		}
		y.users[ref] = struct{}{}
		t.resize(y, pods)
	}
	for _, pods := range before {
		y := t.of[pods.Name]
		if y == nil || named[pods.Name] {
			continue
		}
		if delete(y.users, ref); len(y.users) == 0 {
			t.resize(y, &ingest.GuardedPods{})
			delete(t.of, pods.Name)
		}
	}
}

// resize counts the pods that are new to a set, and drops those that are gone.
func (t *tallies) resize(y *tally, pods *ingest.GuardedPods) {
	if y.pods == pods {
		return
	}
	y.pods = pods
	has, nodes := make(map[xds.Key]bool, len(pods.Captured)), map[string]bool{}
	for _, p := range pods.Captured {
		k := guardOf(p)
		has[k], nodes[p.Node] = true, true
		if _, known := y.at[k]; known {
			continue
		}
		if t.with[k] == nil {
			t.with[k] = map[*tally]struct{}{}
		}
		t.with[k][y] = struct{}{}
		y.put(k, t.look(k))
	}
	y.nodes = len(nodes)
	for k, s := range y.at {
		if has[k] {
			continue
		}
		y.count[s.stance]--
		delete(y.at, k)
		if delete(t.with[k], y); len(t.with[k]) == 0 {
			delete(t.with, k)
		}
	}
}

func (y *tally) put(k xds.Key, now standing) (changed bool) {
	was, known := y.at[k]
	if known && was == now {
		return false
	}
	if known {
		y.count[was.stance]--
	}
	y.count[now.stance]++
	y.at[k] = now
	return true
}

// look asks what the proxies of a node make of a pod's guard. There is one, but for a moment while one replaces
// another.
func (t *tallies) look(k xds.Key) standing {
	state := t.acks.State(k)
	out := standing{}
	for _, a := range state.Proxies {
		now := standing{stance: closed}
		switch {
		case a.State == xds.Rejected:
			now = standing{rejected, rejection(a, k.ID)}
		case a.State == xds.Acked && state.Version != "":
			now.stance = guarded
		case a.Version != "", a.Moving:
			now.stance = behind
		}
		out = worse(out, now)
	}
	return out
}

// rejection says in whose words a proxy refuses a resource.
func rejection(a xds.ProxyAck, id xds.ID) string {
	keeps := "and keeps the last good version"
	if a.Version == "" && id.TypeURL == xds.TypeExtension {
		keeps = "and lets nobody in, for it has no good version"
	}
	return fmt.Sprintf("Proxy %s rejects %s %s: %s", a.Proxy.Pod, id, keeps, a.Error)
}

// worse is what holds of a pod of whose guard two proxies say something.
func worse(a, b standing) standing {
	rank := map[stance]int{unknown: 0, closed: 1, guarded: 2, behind: 3, rejected: 4}
	if rank[b.stance] > rank[a.stance] {
		return b
	}
	return a
}

// acknowledged looks at pods again whose proxy has answered, came or went.
func (t *tallies) acknowledged(keys ...xds.Key) {
	t.mu.Lock()
	defer t.mu.Unlock()
	changed := map[*tally]bool{} // and whether a proxy rejects something of it now
	for _, k := range keys {
		if len(t.with[k]) == 0 {
			continue
		}
		now := t.look(k)
		for y := range t.with[k] {
			if y.put(k, now) {
				changed[y] = changed[y] || now.stance == rejected
			}
		}
	}
	for y, rejects := range changed {
		t.wake(y, rejects || y.count[unknown]+y.count[behind] == 0)
	}
}

// wake has the statuses of a set's users looked at: at once, or soon.
func (t *tallies) wake(y *tally, atOnce bool) {
	touch := func() {
		for ref := range y.users {
			t.touch(ref)
		}
	}
	switch {
	case atOnce:
		if y.soon != nil {
			y.soon.Stop()
			y.soon = nil
		}
		touch()
	case y.soon == nil:
		y.soon = time.AfterFunc(calm, func() {
			t.mu.Lock()
			defer t.mu.Unlock()
			y.soon = nil
			touch()
		})
	}
}

// podCount is how far the proxies are with a set of pods.
type podCount struct {
	pods, nodes int
	// guarded and closed pods let in nobody that the policies wouldn't.
	guarded, closed int
	// late is one of the other pods, the first, and its node.
	late ingest.GuardedPod
	// rejection is a sentence on one of the proxies that reject something, the first by pod.
	rejection string
}

func (c podCount) all() bool { return c.guarded+c.closed == c.pods }

// counted is the count of a set that is followed.
func (t *tallies) counted(pods *ingest.GuardedPods) (out podCount) {
	t.mu.Lock()
	defer t.mu.Unlock()
	y := t.of[pods.Name]
	if y == nil {
		return podCount{pods: len(pods.Captured)} // its report is gone
	}
	if y.stale {
		y.stale = false
		for k := range y.at {
			y.put(k, t.look(k))
		}
	}
	out = podCount{pods: len(y.at), nodes: y.nodes, guarded: y.count[guarded], closed: y.count[closed]}
	if out.all() {
		return out
	}
	for _, p := range y.pods.Captured {
		s := y.at[guardOf(p)]
		if out.rejection = cmp.Or(out.rejection, s.text); out.late.Node == "" && (s.stance == unknown || s.stance == behind) {
			out.late = p
		}
		if out.rejection != "" || y.count[rejected] == 0 && out.late.Node != "" {
			break
		}
	}
	return out
}
