// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package peers

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/internal/catalogue"
)

const (
	dialPatience   = 3 * time.Second
	answerPatience = 5 * time.Second
	// reported is the failure in a row that is logged, once: at a start or during a rollout a replica isn't there yet.
	reported = 3
)

var (
	errSelf    = errors.New("this address is the replica's own")
	errSilence = errors.New("the replica has been silent for too long")
	errTooMuch = fmt.Errorf("the replica sends more than %d records, which is the limit", maxRecords)
)

// run follows one address until the context ends.
func (b *Book) run(ctx context.Context, address string) {
	r := b.join(address)
	defer b.leave(r)
	log := b.opts.Log.WithValues("replica", address)
	client := b.newClient()
	var pause wait.Backoff
	failures := 0
	for {
		complete, err := b.listen(ctx, client, r)
		b.silence(r)
		switch {
		case ctx.Err() != nil:
			return
		case errors.Is(err, errSelf):
			<-ctx.Done()
			return
		case complete || pause.Duration == 0:
			t := b.opts.times
			pause = wait.Backoff{Duration: t.retry, Cap: t.retryMax, Factor: 2, Jitter: 0.5, Steps: math.MaxInt}
		}
		if complete {
			failures = 0
		}
		if !complete || !errors.Is(err, io.EOF) { // not ended as planned
			failures++
		}
		if failures == reported {
			log.Info("a replica's acknowledgements can't be followed; trying again", "reason", err.Error())
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause.Step()):
		}
	}
}

func (b *Book) newClient() *http.Client {
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig:       b.opts.TLS.Clone(),
		DialContext:           (&net.Dialer{Timeout: dialPatience}).DialContext,
		TLSHandshakeTimeout:   answerPatience,
		ResponseHeaderTimeout: answerPatience,
		DisableKeepAlives:     true,
		DisableCompression:    true,
	}}
}

// listen takes in one feed until it ends, which is always an error. complete tells whether there was a whole snapshot.
func (b *Book) listen(ctx context.Context, client *http.Client, r *remote) (complete bool, err error) {
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+r.address+path+"?"+queryTogether, http.NoBody)
	if err != nil {
		return false, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return false, err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return false, fmt.Errorf("the replica answers %s", resp.Status)
	}
	patience := 3 * b.opts.times.heartbeat
	watchdog := time.AfterFunc(patience, func() { cancel(errSilence) })
	defer watchdog.Stop()

	snapshot := newEntries()
	lines := bufio.NewScanner(resp.Body)
	lines.Buffer(nil, maxLine)
	for lines.Scan() {
		watchdog.Reset(patience)
		var l line
		if err := json.Unmarshal(lines.Bytes(), &l); err != nil {
			return complete, fmt.Errorf("a line can't be read: %w", err)
		}
		if l.Replica == b.replica {
			return false, errSelf
		}
		for _, text := range l.Notes {
			b.opts.OnNote(text)
		}
		for _, text := range l.Facts {
			b.opts.OnFact(text)
		}
		if !b.take(r, &snapshot, l.Entries, complete) {
			return complete, errTooMuch
		}
		if l.Complete && !complete {
			complete = true
			b.opts.Log.Info("following a replica's acknowledgements", "replica", r.address, "resources", len(snapshot.of))
			b.replace(r, snapshot)
		}
	}
	if cause := context.Cause(ctx); cause != nil {
		return complete, cause
	}
	if err := lines.Err(); err != nil {
		return complete, err
	}
	return complete, io.EOF
}

// take puts the relevant entries of a line into the book, or into the snapshot while that is not complete.
func (b *Book) take(r *remote, snapshot *entries, es []entry, complete bool) (ok bool) {
	var kept []entry
	for _, all := range es {
		for _, e := range all.apart() {
			if catalogue.PartOf(e.key()) != catalogue.Nobody { // a newer release may tell more
				e.compact()
				kept = append(kept, e)
			}
		}
	}
	if complete {
		return len(kept) == 0 || b.update(r, kept)
	}
	for _, e := range kept {
		if !snapshot.put(e) {
			return false
		}
	}
	return true
}
