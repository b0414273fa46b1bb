// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"errors"
	"math"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/serve"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
)

const (
	// share is how many bytes of keys are kept for the policies of a namespace, so that no namespace's keys push out
	// another's.
	share = 2 << 20
	// idle is after what time keys go that Envoy doesn't ask for.
	idle = 10 * time.Minute
	// retry is how long after the first failure a server is asked again, patience after many.
	retry, patience = 2 * time.Second, 30 * time.Second
	// jitter is by what part of itself a pause may be longer, so that the agents of many proxies don't ask at once.
	jitter = 0.25
	// seldom is the default of Keeper.Seldom.
	seldom = 30 * time.Second
)

// Keeper keeps keys. What was fetched is good until something better comes.
type Keeper struct {
	// Seldom is how often a server is asked at most because of tokens with unknown keys, which anybody can make.
	Seldom time.Duration

	fetch   func(context.Context, authentication.KeySource) ([]byte, error)
	now     func() time.Time
	log     logr.Logger
	fetched *prometheus.CounterVec

	mu    sync.Mutex
	of    map[string]map[authentication.KeySource]*kept // by the namespace of the policy
	swept time.Time
}

// kept are the keys of one source.
type kept struct {
	keys []byte
	// asked is when Envoy asked last, fetched when the server gave the keys, tried when it was asked last.
	asked, fetched, tried time.Time
	// again is when it is asked again at the earliest, and pauses how much later each time, while outcomes are bad.
	again  time.Time
	pauses *wait.Backoff
	// fetching is the answer that is under way; nil: none is.
	fetching *coming
	outcome
}

// coming is an answer that is awaited. It is for who waits for it, also where there is no room to keep it.
type coming struct {
	done chan struct{}
	keys []byte
}

// errNoRoom is why keys aren't kept that are good.
var errNoRoom = errors.New("all sets of keys that the policies of the namespace have fetched here have more than 2 " +
	"MiB together, so this one is not kept: have fewer servers of keys, or fewer keys in their answers")

// New makes a keeper that asks servers through the Envoy that listens on a socket.
func New(socket string, log logr.Logger, reg prometheus.Registerer) *Keeper {
	k := &Keeper{
		Seldom: seldom, fetch: through(socket).fetch, now: time.Now, log: log,
		of: map[string]map[authentication.KeySource]*kept{},
		fetched: promauto.With(reg).NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_agent_key_fetches_total",
			Help: "Sets of keys of tokens that were asked for, by result: ok, failed.",
		}, []string{"result"}),
	}
	k.fetched.WithLabelValues("ok")
	k.fetched.WithLabelValues("failed")
	return k
}

// Serve answers Envoy until the context ends.
func (k *Keeper) Serve(ctx context.Context, l net.Listener) error {
	return serve.HTTP(ctx, &http.Server{Handler: k, ReadHeaderTimeout: time.Minute}, l, time.Second)
}

// ServeHTTP answers with keys, or with 503 where none were ever had.
func (k *Keeper) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s, err := authentication.ParseKeySource(r.URL.Query())
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	set := k.get(r.Context(), s)
	if set == nil {
		http.Error(w, "the server of keys has given none", http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(set) //nolint:gosec // Envoy reads it, and no browser
}

// get is the latest set of keys, at once where there is one: a newer one is fetched beside that.
func (k *Keeper) get(ctx context.Context, s authentication.KeySource) []byte {
	k.mu.Lock()
	now := k.now()
	k.sweep(now)
	e := k.entry(s)
	e.asked = now
	if e.fetching == nil && e.due(now, s) {
		k.begin(ctx, s, e)
	}
	set, coming := e.keys, e.fetching
	k.mu.Unlock()
	if set != nil || coming == nil {
		return set
	}
	select {
	case <-coming.done:
		return coming.keys
	case <-ctx.Done():
		return nil
	}
}

// every is how often keys are fetched: so that the proxy has newer ones by the time that these are too old.
func every(s authentication.KeySource) time.Duration {
	return max(s.CacheFor-authentication.AskAgainFor, s.CacheFor/2)
}

// due tells whether it is time to fetch. k.mu is held.
func (e *kept) due(now time.Time, s authentication.KeySource) bool {
	if e.pauses != nil {
		return !now.Before(e.again)
	}
	return e.keys == nil || now.Sub(e.fetched) >= every(s)
}

// Renew asks again for the keys that Envoy has, but not too often: somebody came with a token whose key is not among
// them. Nobody can tell whose tokens they are.
func (k *Keeper) Renew(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for _, of := range k.of {
		for s, e := range of {
			if e.keys != nil && e.used(now) && e.fetching == nil && now.Sub(e.tried) >= k.Seldom {
				k.begin(ctx, s, e)
			}
		}
	}
}

// used tells whether Envoy still asks for the keys.
func (e *kept) used(now time.Time) bool { return now.Sub(e.asked) < 2*authentication.AskAgainFor }

// begin to fetch, which nobody's end ends. k.mu is held.
func (k *Keeper) begin(ctx context.Context, s authentication.KeySource, e *kept) {
	e.tried, e.fetching = k.now(), &coming{done: make(chan struct{})}
	go k.refresh(context.WithoutCancel(ctx), s, e)
}

// entry of a source, made where there is none. k.mu is held.
func (k *Keeper) entry(s authentication.KeySource) *kept {
	of := k.of[s.Namespace]
	if of == nil {
		of = map[authentication.KeySource]*kept{}
		k.of[s.Namespace] = of
	}
	e := of[s]
	if e == nil {
		e = &kept{}
		of[s] = e
	}
	return e
}

// refresh asks a server.
func (k *Keeper) refresh(ctx context.Context, s authentication.KeySource, e *kept) {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	set, err := k.fetch(ctx, s)
	if err == nil {
		err = unusable(set)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	defer close(e.fetching.done)
	if err == nil {
		k.fetched.WithLabelValues("ok").Inc()
		e.fetching.keys, e.keys, e.fetched = set, set, k.now()
		if !k.fits(s.Namespace, e) {
			e.keys, err = nil, errNoRoom
		}
	} else {
		k.fetched.WithLabelValues("failed").Inc()
		e.fetching.keys = e.keys
	}
	k.note(s, e, err)
	e.fetching = nil
}

// note what came of asking, and when it may be asked again if that was nothing. k.mu is held.
func (k *Keeper) note(s authentication.KeySource, e *kept, err error) {
	kind, now := counts.KeysFetched, k.now()
	switch {
	case err == nil:
		e.pauses = nil
	case e.keys == nil && e.fetched.IsZero():
		kind = counts.KeysMissing
	default:
		kind = counts.KeysStale
	}
	if err != nil {
		if e.pauses == nil {
			e.pauses = &wait.Backoff{
				Duration: min(retry, every(s)), Factor: 2, Jitter: jitter, Cap: patience, Steps: math.MaxInt,
			}
		}
		e.again = now.Add(e.pauses.Step())
	}
	if !e.note(kind, err, now) {
		return
	}
	of := []any{"policiesOf", s.Namespace, "cluster", s.Cluster, "uri", shown(s.URI)}
	switch {
	case err != nil:
		k.log.Error(err, "no keys of tokens from their server; those from before stay good",
			append(of, "before", kind == counts.KeysStale)...)
	case e.before != "":
		k.log.Info("the server gives keys of tokens again", of...)
	}
}

// fits tells whether a namespace's share has room for the latest set of keys. What Envoy asks for no more gives way to
// it; what is in use doesn't, or all sets would be fetched again and again. k.mu is held.
func (k *Keeper) fits(namespace string, latest *kept) bool {
	sum, now := 0, k.now()
	for _, e := range k.of[namespace] {
		sum += len(e.keys)
	}
	for s, e := range k.of[namespace] {
		if sum <= share {
			return true
		}
		if e != latest && len(e.keys) > 0 && e.fetching == nil && !e.used(now) {
			sum -= len(e.keys)
			delete(k.of[namespace], s)
		}
	}
	return sum <= share
}

// sweep drops what Envoy doesn't ask for. k.mu is held.
func (k *Keeper) sweep(now time.Time) {
	if now.Sub(k.swept) < idle/10 {
		return
	}
	k.swept = now
	for namespace, of := range k.of {
		for s, e := range of {
			if e.fetching == nil && now.Sub(e.asked) >= idle {
				delete(of, s)
			}
		}
		if len(of) == 0 {
			delete(k.of, namespace)
		}
	}
}
