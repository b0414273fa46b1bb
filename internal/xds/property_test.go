// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestAnyHistoryConverges drives random histories of changes, subscriptions, verdicts and reconnects, and then checks
// that what each client has follows from the cache alone.
func TestAnyHistoryConverges(t *testing.T) {
	rounds := 150
	if testing.Short() {
		rounds = 20
	}
	for seed := range rounds {
		t.Run(fmt.Sprint(seed), func(t *testing.T) { newHistory(t, uint64(seed)).run() })
	}
}

// history is one random run: two clients of one scope that behave as Envoy does.
type history struct {
	*fixture
	rnd     *rand.Rand
	clients []*model
	// exists is what the cache holds, and known what it was ever told about.
	exists map[string]map[string]*Resource
	ready  map[string]bool
	next   int
}

var historyTypes = []string{TypeCluster, TypeEndpoint, TypeExtension, TypeListener, TypeRoute, TypeSecret}

// model is a client and what it should want. Resources in bad are refused by everyone.
type model struct {
	*client
	h          *history
	pod        string
	named      map[string]map[string]bool
	wildcard   map[string]bool
	unopened   map[string]bool
	unanswered []*discoveryv3.DeltaDiscoveryResponse
	// refused counts how often a version was refused alone on this stream, asked how often its name was asked for.
	refused, asked map[string]int
}

func newHistory(t *testing.T, seed uint64) *history {
	h := &history{
		fixture: newFixture(t, func(o *Options) { refuseProbe(o); o.maxResponseBytes = 60 }),
		rnd:     rand.New(rand.NewPCG(seed, 1)),
		exists:  map[string]map[string]*Resource{}, ready: map[string]bool{},
	}
	for _, u := range historyTypes {
		h.exists[u] = map[string]*Resource{}
	}
	for i := range 2 {
		m := &model{h: h, pod: fmt.Sprint("p", i), named: map[string]map[string]bool{}, wildcard: map[string]bool{}}
		for _, u := range historyTypes {
			m.named[u] = map[string]bool{}
		}
		m.connect(false)
		h.clients = append(h.clients, m)
	}
	return h
}

func (h *history) run() {
	for range 120 {
		m := h.clients[h.rnd.IntN(len(h.clients))]
		u := historyTypes[h.rnd.IntN(len(historyTypes))]
		switch h.rnd.IntN(14) {
		case 0, 1, 2, 3:
			h.change()
		case 4:
			h.ready[u] = true
			h.cache.Ready(testScope, u)
		case 5, 6:
			m.toggle(u, fmt.Sprint("n", h.rnd.IntN(6)))
		case 7:
			m.toggle(u, Wildcard)
		case 8:
			m.again(u)
		case 9:
			if h.rnd.IntN(3) == 0 {
				m.cancel()
				m.connect(h.rnd.IntN(4) > 0)
			}
		default:
			m.collect()
			m.answerOne()
		}
	}
	for _, m := range h.clients {
		m.settle()
	}
	for _, m := range h.clients {
		m.check()
	}
}

// change applies one to three random updates as one step. One content in five is bad.
func (h *history) change() {
	var ups []Update
	for range 1 + h.rnd.IntN(3) {
		u, name := historyTypes[h.rnd.IntN(len(historyTypes))], fmt.Sprint("n", h.rnd.IntN(6))
		h.next++
		var r *Resource
		if h.rnd.IntN(3) > 0 {
			r = h.content(u, name)
			h.exists[u][name] = r
		} else {
			delete(h.exists[u], name)
		}
		ups = append(ups, Update{ID: ID{u, name}, Resource: r})
	}
	h.cache.Apply(testScope, ups)
}

func (h *history) content(u, name string) *Resource {
	packed := cluster(h.t, name, h.next).Any()
	r, err := NewRawResource(name, fmt.Sprint(h.next), packed)
	require.NoError(h.t, err)
	packed.TypeUrl = u
	return r
}

func isBad(version string) bool {
	return version[len(version)-1] == '3' || version[len(version)-1] == '7'
}

// connect opens a stream and subscribes to all that the model wants. A client that keeps its state says what it has.
func (m *model) connect(keep bool) {
	old := m.client
	m.client = m.h.connect(testScope, m.pod)
	m.unanswered, m.refused, m.asked, m.unopened = nil, map[string]int{}, map[string]int{}, map[string]bool{}
	if keep && old != nil {
		m.has = old.has
	}
	for _, u := range historyTypes {
		var names []string
		if m.wildcard[u] {
			names = append(names, Wildcard)
		}
		names = append(names, slices.Sorted(maps.Keys(m.named[u]))...)
		if len(names) == 0 {
			m.unopened[u] = true
			delete(m.has, u)
			continue
		}
		m.send(&discoveryv3.DeltaDiscoveryRequest{
			TypeUrl: u, ResourceNamesSubscribe: names,
			InitialResourceVersions: m.has[u],
		})
	}
}

// toggle subscribes to a name or wildcard, or unsubscribes, and drops what Envoy would drop.
func (m *model) toggle(u, name string) {
	on := m.named[u][name]
	if name == Wildcard {
		on = m.wildcard[u]
	}
	if !on {
		if name == Wildcard {
			m.wildcard[u] = true
			if m.unopened[u] && m.h.rnd.IntN(2) == 0 {
				delete(m.unopened, u)
				m.subscribe(u) // the legacy form
				return
			}
		} else {
			m.named[u][name] = true
		}
		delete(m.unopened, u)
		m.asked[u+name]++
		m.subscribe(u, name)
		return
	}
	if name == Wildcard {
		m.wildcard[u] = false
	} else {
		delete(m.named[u], name)
		m.asked[u+name]++ // a remaining wildcard has to answer
	}
	for n := range m.has[u] {
		if !m.wildcard[u] && !m.named[u][n] {
			delete(m.has[u], n)
		}
	}
	m.unsubscribe(u, name)
}

// again asks once more for what is subscribed already.
func (m *model) again(u string) {
	for name := range m.named[u] {
		m.asked[u+name]++
		m.subscribe(u, name)
		return
	}
}

// collect takes in what has arrived, and checks the flow control.
func (m *model) collect() {
	for {
		select {
		case r := <-m.in:
			m.arrived(r)
		default:
			return
		}
	}
}

func (m *model) arrived(r *discoveryv3.DeltaDiscoveryResponse) {
	for _, o := range m.unanswered {
		require.NotEqual(m.t, o.GetTypeUrl(), r.GetTypeUrl(), "two unanswered responses of one type")
	}
	m.unanswered = append(m.unanswered, r)
}

// answerOne gives the verdict on one response: all or nothing, as Envoy does for routes.
func (m *model) answerOne() {
	if len(m.unanswered) == 0 {
		return
	}
	i := m.h.rnd.IntN(len(m.unanswered))
	r := m.unanswered[i]
	m.unanswered = slices.Delete(m.unanswered, i, i+1)
	u := r.GetTypeUrl()
	for _, res := range r.GetResources() {
		if !isBad(res.GetVersion()) {
			continue
		}
		if len(r.GetResources())+len(r.GetRemovedResources()) == 1 {
			m.refused[u+res.GetVersion()]++
			require.LessOrEqual(m.t, m.refused[u+res.GetVersion()], 1+m.asked[u+res.GetName()]+m.asked[u+Wildcard],
				"a refused version is sent again")
		}
		m.nack(r, "bad")
		return
	}
	m.ack(r)
	for n := range m.has[u] { // Envoy ignores what it did not ask for
		if !m.wildcard[u] && !m.named[u][n] {
			delete(m.has[u], n)
		}
	}
}

// settle answers until the server has nothing more to say.
func (m *model) settle() {
	for quiet := 0; quiet < 2; {
		m.collect()
		for len(m.unanswered) > 0 {
			m.answerOne()
		}
		quiet++
		m.subscribe(probeType, "probe")
		for {
			r := m.recv()
			if r.GetTypeUrl() == probeType {
				m.send(&discoveryv3.DeltaDiscoveryRequest{
					TypeUrl: probeType, ResponseNonce: r.GetNonce(),
					ResourceNamesUnsubscribe: []string{"probe"},
				})
				break
			}
			quiet = 0
			m.arrived(r)
			m.answerOne()
		}
	}
}

// check compares what the client has with what follows from the cache.
func (m *model) check() {
	for _, u := range historyTypes {
		complete := m.wildcard[u] && m.h.ready[u]
		for i := range 6 {
			name := fmt.Sprint("n", i)
			want, has := m.h.exists[u][name], m.has[u][name]
			what := fmt.Sprintf("%s %s of %s: named %t wildcard %t ready %t", typeLabel(u), name, m.pod, m.named[u][name],
				m.wildcard[u], m.h.ready[u])
			switch {
			case !m.named[u][name] && !complete:
				if !m.wildcard[u] {
					require.Empty(m.t, has, what)
				}
			case want == nil && u == TypeExtension && m.named[u][name]: // it keeps what it has
			case want == nil:
				if complete && !m.named[u][name] || m.h.told(u, name) {
					require.Empty(m.t, has, what)
				}
			case isBad(want.Version()):
				require.NotEqual(m.t, want.Version(), has, what)
				require.Equal(m.t, Rejected, m.book(u, name).State, what)
			default:
				require.Equal(m.t, want.Version(), has, what)
				require.Equal(m.t, Acked, m.book(u, name).State, what)
			}
		}
	}
}

// told tells whether the cache knows that the resource does not exist.
func (h *history) told(u, name string) bool {
	r, known := h.cache.Get(testScope.Key(u, name))
	return known && r == nil
}

// book is what the acknowledgement book says of this client, once it is no more pending.
func (m *model) book(u, name string) (out ProxyAck) {
	m.t.Helper()
	eventually.True(m.h.t, "the book is settled", func() bool {
		for _, p := range m.h.server.State(testScope.Key(u, name)).Proxies {
			if p.Proxy.Pod == m.pod {
				out = p
			}
		}
		return out.State != Pending
	})
	return out
}
