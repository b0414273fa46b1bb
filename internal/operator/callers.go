// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package operator

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promauto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
)

// callers takes in what proxies count of their callers, of this replica and of others, and passes on what it has grown
// by: to statuses, and to the sum of those who come in plain text.
type callers struct {
	book      *counts.Book
	strangers *counts.Strangers
	origins   *origins
	metric    *prometheus.CounterVec
	// tell is peers.Book.Tell, grown what statuses are told.
	tell  func(subject, fact string)
	grown func([]counts.Growth)

	mu     sync.Mutex
	labels map[[4]string]struct{}
	// room for labels is shared by the namespaces of destinations.
	room *counts.Room[string]
}

// maxLabels bounds the series of the metric.
const (
	maxLabels     = 10_000
	labelsPerFree = 8
)

// sweepCallers is how often what is old is forgotten.
const sweepCallers = 10 * time.Minute

func newCallers(o *origins, r prometheus.Registerer) *callers {
	return &callers{
		book: counts.NewBook(), strangers: counts.NewStrangers(), origins: o, labels: map[[4]string]struct{}{},
		room: counts.NewRoom[string](maxLabels, labelsPerFree),
		metric: promauto.With(r).NewCounterVec(prometheus.CounterOpts{
			Name: "fairway_plaintext_callers_total",
			Help: "Connections without identity to captured pods, by where they came from, as the proxies connected to this " +
				"replica tell.",
		}, []string{"source", "source_namespace", "destination_namespace", "destination", "refused"}),
	}
}

// fact is what replicas tell each other.
type fact struct {
	counts.Source
	counts.Count
}

// take is told by a proxy that is connected to this replica.
func (c *callers) take(from counts.Source, told []counts.Count) {
	grown := c.book.Take(from, told)
	for _, g := range grown {
		if text, err := json.Marshal(fact{from, g.Count}); err == nil { // plain strings
			c.tell(subject(from, g.Series), string(text))
		}
	}
	c.pass(grown, true)
}

// told is what another replica was told.
func (c *callers) told(text string) {
	var f fact
	if json.Unmarshal([]byte(text), &f) == nil { // else it is a newer release's
		c.pass(c.book.Take(f.Source, []counts.Count{f.Count}), false)
	}
}

func subject(from counts.Source, s counts.Series) string { return fmt.Sprint(from, s) }

func (c *callers) pass(grown []counts.Growth, here bool) {
	c.grown(grown)
	for _, g := range grown {
		if g.Kind != counts.Plaintext && g.Kind != counts.Strict {
			continue
		}
		node, ok := catalogue.NodeOf(g.Scope)
		ns, name, _ := strings.Cut(g.Destination, "/")
		to, runs := c.origins.workload(types.NamespacedName{Namespace: ns, Name: name}, node)
		if !ok || !runs { // it may speak of its own pods only
			continue
		}
		from := c.origins.of(g.Series.Source)
		c.strangers.Add(to, from, g)
		if here {
			c.measure(to, from, g)
		}
	}
}

func (c *callers) measure(to counts.Workload, from counts.Origin, g counts.Growth) {
	labels := [4]string{string(from.Kind), from.Namespace, to.Namespace, to.Name}
	c.mu.Lock()
	_, known := c.labels[labels]
	if !known && c.room.Has(to.Namespace) {
		c.room.Take(to.Namespace)
		c.labels[labels], known = struct{}{}, true
	}
	c.mu.Unlock()
	if !known {
		labels = [4]string{string(counts.OriginOthers)}
	}
	refused := "false"
	if g.Kind == counts.Strict {
		refused = "true"
	}
	c.metric.WithLabelValues(append(labels[:], refused)...).Add(float64(g.Added))
}

// run forgets what is old until the context ends.
func (c *callers) run(ctx context.Context) error {
	tick := time.NewTicker(sweepCallers)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case now := <-tick.C:
			c.book.Sweep(now, func(from counts.Source, s counts.Series) { c.tell(subject(from, s), "") })
		}
	}
}
