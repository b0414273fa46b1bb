// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/accept"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/serve"
	"github.com/fairway-mesh/fairway/internal/wake"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// maxFollowers bounds the replicas that follow this one at a time, former connections of theirs included.
	maxFollowers = 32
	// writePatience bounds the writing of one line; a follower that reads no faster is cut off and starts anew.
	writePatience = 10 * time.Second
)

// feed tells other replicas what the local proxies acknowledged.
type feed struct {
	local   Local
	replica string
	times   times
	log     logr.Logger

	mu        sync.Mutex
	followers map[*follower]struct{}
	notes     []string
	forgotten int // notes that were made before the ones that are kept
	facts     map[string]string
}

// follower is a replica that reads the feed. It holds no more than the names of the resources that there are.
type follower struct {
	wake wake.Signal // something is due

	mu  sync.Mutex
	due map[xds.Key]struct{}
	// untold are the subjects of facts that the follower doesn't have.
	untold map[string]struct{}

	// What the follower has; only its own goroutine uses it: entries, with the version of each, and the number of notes.
	told  map[xds.Key]string
	noted int
	// postponed is what the follower takes to be so for now without being told.
	postponed map[xds.Key]struct{}
	// together: it takes entries of several resources.
	together bool
}

func newFeed(local Local, replica string, t times, log logr.Logger) *feed {
	return &feed{
		local: local, replica: replica, times: t, log: log, followers: map[*follower]struct{}{},
		facts: map[string]string{},
	}
}

// serve answers until the context ends.
func (f *feed) serve(ctx context.Context, ln net.Listener, cfg *tls.Config) error {
	cancel := f.local.OnChange(f.noteChanged)
	defer cancel()
	mux := http.NewServeMux()
	mux.Handle("GET "+path, f)
	s := &http.Server{
		Handler:           mux,
		TLSConfig:         cfg.Clone(),
		Protocols:         new(http.Protocols),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    8 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		// Refused handshakes, above all: anyone in the cluster can cause them.
		ErrorLog: log.New(logWriter{f.log}, "", 0),
	}
	s.Protocols.SetHTTP1(true) // one feed on one connection: nothing to multiplex
	// A feed has no end of its own.
	if err := serve.HTTP(ctx, s, accept.Limit(ln, accept.MaxConnections, accept.MaxPerPeer), 0); err != nil {
		return fmt.Errorf("serve other replicas: %w", err)
	}
	return nil
}

type logWriter struct{ log logr.Logger }

func (w logWriter) Write(p []byte) (int, error) {
	w.log.V(1).Info("connection of another replica", "problem", string(p))
	return len(p), nil
}

// noteChanged notes what is due to whom. What changes together is told together.
func (f *feed) noteChanged(keys ...xds.Key) {
	told := make([]xds.Key, 0, len(keys))
	for _, k := range keys {
		if k = catalogue.Together(k); catalogue.PartOf(k) != catalogue.Nobody {
			told = append(told, k)
		}
	}
	if len(told) == 0 {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for fo := range f.followers {
		fo.add(told)
	}
}

// note keeps a note for followers, present and future.
func (f *feed) note(text string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.notes = append(f.notes, text); len(f.notes) > maxNotes {
		f.notes = f.notes[1:]
		f.forgotten++
	}
	for fo := range f.followers {
		fo.wake.Set()
	}
}

// unnoted are the notes that a follower does not have yet.
func (f *feed) unnoted(fo *follower) []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := slices.Clone(f.notes[max(fo.noted-f.forgotten, 0):])
	fo.noted = f.forgotten + len(f.notes)
	return out
}

// tell keeps a fact for followers, present and future.
func (f *feed) tell(subject, fact string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	_, known := f.facts[subject]
	switch {
	case fact == "":
		delete(f.facts, subject)
		return
	case !known && len(f.facts) >= maxFacts:
		return
	}
	f.facts[subject] = fact
	for fo := range f.followers {
		fo.mu.Lock()
		fo.untold[subject] = struct{}{}
		fo.mu.Unlock()
		fo.wake.Set()
	}
}

// untold are the latest facts that a follower doesn't have yet.
func (f *feed) untold(fo *follower) (out []string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fo.mu.Lock()
	defer fo.mu.Unlock()
	for subject := range fo.untold {
		if fact, known := f.facts[subject]; known {
			out = append(out, fact)
		}
	}
	fo.untold = map[string]struct{}{}
	return out
}

func (f *feed) sendFacts(enc *json.Encoder, fo *follower) error {
	for facts := range slices.Chunk(f.untold(fo), factsPerLine) {
		if err := enc.Encode(line{Facts: facts}); err != nil {
			return err
		}
	}
	return nil
}

func (f *feed) sendNotes(enc *json.Encoder, fo *follower) error {
	for notes := range slices.Chunk(f.unnoted(fo), notesPerLine) {
		if err := enc.Encode(line{Notes: notes}); err != nil {
			return err
		}
	}
	return nil
}

func (fo *follower) add(keys []xds.Key) {
	fo.mu.Lock()
	for _, k := range keys {
		fo.due[k] = struct{}{}
	}
	fo.mu.Unlock()
	fo.wake.Set()
}

func (fo *follower) take() map[xds.Key]struct{} {
	fo.mu.Lock()
	defer fo.mu.Unlock()
	due := fo.due
	fo.due = map[xds.Key]struct{}{}
	return due
}

func (f *feed) join() *follower {
	f.mu.Lock()
	defer f.mu.Unlock()
	if len(f.followers) >= maxFollowers {
		return nil
	}
	fo := &follower{
		wake: wake.New(), due: map[xds.Key]struct{}{}, untold: map[string]struct{}{}, told: map[xds.Key]string{},
		postponed: map[xds.Key]struct{}{},
	}
	for subject := range f.facts {
		fo.untold[subject] = struct{}{}
	}
	fo.wake.Set()
	f.followers[fo] = struct{}{}
	return fo
}

func (f *feed) leave(fo *follower) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.followers, fo)
}

// ServeHTTP feeds one follower. The TLS configuration let only replicas of this operator in.
func (f *feed) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fo := f.join()
	if fo == nil {
		http.Error(w, "too many replicas follow this one", http.StatusServiceUnavailable)
		return
	}
	defer f.leave(fo)
	fo.together = r.URL.Query().Has(queryTogether)
	w.Header().Set("Content-Type", "application/jsonlines")
	ctx, cancel := context.WithTimeout(r.Context(), f.times.age)
	defer cancel()
	if err := f.feed(ctx, fo, responseWriter{w, http.NewResponseController(w)}); err != nil {
		f.log.V(1).Info("a replica no longer follows", "from", r.RemoteAddr, "reason", err.Error())
	}
}

func (f *feed) feed(ctx context.Context, fo *follower, out io.Writer) error {
	enc := json.NewEncoder(out) // ends each value with a newline
	if err := enc.Encode(line{Replica: f.replica}); err != nil {
		return err
	}
	if err := f.sendNotes(enc, fo); err != nil {
		return err
	}
	// The follower has joined: what changes from now on is due after the snapshot.
	if err := f.send(enc, fo, f.known(), false); err != nil {
		return err
	}
	if err := enc.Encode(line{Complete: true}); err != nil {
		return err
	}
	heartbeat := time.NewTicker(f.times.heartbeat)
	defer heartbeat.Stop()
	var late <-chan time.Time
	for {
		if late == nil && len(fo.postponed) > 0 {
			late = time.After(f.times.postpone)
		}
		var err error
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-heartbeat.C:
			err = enc.Encode(line{})
		case <-fo.wake:
			if err = f.sendNotes(enc, fo); err == nil { // versions follow from notes
				err = f.send(enc, fo, fo.take(), false)
			}
			if err == nil {
				err = f.sendFacts(enc, fo)
			}
		case <-late:
			late = nil
			err = f.sendPostponed(enc, fo)
		}
		if err != nil {
			return err
		}
	}
}

// known lists what connected proxies subscribe to or have.
func (f *feed) known() map[xds.Key]struct{} {
	out := map[xds.Key]struct{}{}
	for _, p := range f.local.Proxies() {
		for typeURL, t := range p.Types {
			add := func(name string) {
				if k := catalogue.Together(p.Proxy.Scope.Key(typeURL, name)); catalogue.PartOf(k) != catalogue.Nobody {
					out[k] = struct{}{}
				}
			}
			for _, name := range t.Names {
				add(name)
			}
			for _, r := range t.Resources {
				add(r.Name)
			}
		}
	}
	return out
}

// sendPostponed tells what is so still.
func (f *feed) sendPostponed(enc *json.Encoder, fo *follower) error {
	keys := fo.postponed
	fo.postponed = map[xds.Key]struct{}{}
	return f.send(enc, fo, keys, true)
}

// send tells the present state of the keys, in lines of bounded size. What is foreseen is postponed, unless it is late.
func (f *feed) send(enc *json.Encoder, fo *follower, keys map[xds.Key]struct{}, late bool) error {
	var es []entry
	records := 0
	for k := range keys {
		e := entryOf(k, f.local.State(k))
		version, told := fo.told[k]
		delete(fo.postponed, k)
		switch {
		case len(e.Proxies) == 0 && !told:
			continue // most clusters, most of the time
		case !late && told && version != e.Version && e.foreseen():
			fo.postponed[k] = struct{}{}
			continue
		case len(e.Proxies) == 0:
			delete(fo.told, k)
		default:
			fo.told[k] = e.Version
		}
		es = append(es, e)
		if records += e.records(); records >= recordsPerLine {
			if err := sendEntries(enc, fo, es); err != nil {
				return err
			}
			es, records = es[:0], 0
		}
	}
	return sendEntries(enc, fo, es)
}

func sendEntries(enc *json.Encoder, fo *follower, es []entry) error {
	if len(es) == 0 {
		return nil
	}
	if fo.together {
		es = together(es)
	}
	return enc.Encode(line{Entries: es})
}

// responseWriter sends each write off at once and does not wait for a reader for ever.
type responseWriter struct {
	http.ResponseWriter
	control *http.ResponseController
}

func (w responseWriter) Write(p []byte) (int, error) {
	if err := w.control.SetWriteDeadline(time.Now().Add(writePatience)); err != nil {
		return 0, err
	}
	n, err := w.ResponseWriter.Write(p)
	if err == nil {
		err = w.control.Flush()
	}
	return n, err
}
