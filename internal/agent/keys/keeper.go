// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package keys

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"

	"github.com/fairway-mesh/fairway/internal/serve"
	"github.com/fairway-mesh/fairway/internal/translate/authentication"
)

const (
	// share is how many bytes of keys are kept for the policies of a namespace. What is beyond it is fetched whenever it
	// is asked for, so that no namespace's keys push out another's.
	share = 2 << 20
	// idle is after what time keys go that Envoy doesn't ask for.
	idle = 10 * time.Minute
	// retry is how long after a failure a server is asked again.
	retry = 2 * time.Second
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
	failing               bool
	// fetching ends with the answer that is under way; nil: none is.
	fetching chan struct{}
}

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
	case <-coming:
	case <-ctx.Done():
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	return e.keys
}

// due tells whether it is time to fetch: so that the proxy has newer keys by the time that these are too old. k.mu is
// held.
func (e *kept) due(now time.Time, s authentication.KeySource) bool {
	every := max(s.CacheFor-authentication.AskAgainFor, s.CacheFor/2)
	if e.keys != nil && now.Sub(e.fetched) < every {
		return false
	}
	return now.Sub(e.tried) >= min(retry, every)
}

// Renew asks again for the keys that Envoy has, but not too often: somebody came with a token whose key is not among
// them. Nobody can tell whose tokens they are.
func (k *Keeper) Renew(ctx context.Context) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for _, of := range k.of {
		for s, e := range of {
			used := e.keys != nil && now.Sub(e.asked) < 2*authentication.AskAgainFor
			if used && e.fetching == nil && now.Sub(e.tried) >= k.Seldom {
				k.begin(ctx, s, e)
			}
		}
	}
}

// begin to fetch, which nobody's end ends. k.mu is held.
func (k *Keeper) begin(ctx context.Context, s authentication.KeySource, e *kept) {
	e.tried, e.fetching = k.now(), make(chan struct{})
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
	close(e.fetching)
	e.fetching = nil
	if err != nil {
		k.fetched.WithLabelValues("failed").Inc()
		if !e.failing {
			k.log.Error(err, "no keys of tokens from their server; those from before stay good", "policiesOf", s.Namespace,
				"cluster", s.Cluster, "uri", s.URI, "before", e.keys != nil)
		}
		e.failing = true
		return
	}
	k.fetched.WithLabelValues("ok").Inc()
	if e.failing {
		k.log.Info("the server gives keys of tokens again", "policiesOf", s.Namespace, "cluster", s.Cluster, "uri", s.URI)
	}
	e.keys, e.fetched, e.failing = set, k.now(), false
	k.fit(s.Namespace, e)
}

// fit drops what was not asked for the longest where a namespace keeps more than its share. k.mu is held.
func (k *Keeper) fit(namespace string, latest *kept) {
	sum := 0
	for _, e := range k.of[namespace] {
		sum += len(e.keys)
	}
	for sum > share {
		var last authentication.KeySource
		var oldest *kept
		for s, e := range k.of[namespace] {
			if e != latest && e.keys != nil && e.fetching == nil && (oldest == nil || e.asked.Before(oldest.asked)) {
				last, oldest = s, e
			}
		}
		if oldest == nil {
			return
		}
		sum -= len(oldest.keys)
		delete(k.of[namespace], last)
	}
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
