// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"sync"
	"time"
)

// mostFailures are told apart of each kind of load.
const mostFailures = 5

// loadResult is what came of one kind of load.
type loadResult struct {
	Kind string `json:"kind"`
	// Started tells this process from another one, which knows nothing of what this one had begun.
	Started time.Time `json:"started"`
	Done    int       `json:"done"`
	Failed  int       `json:"failed"`
	// LongestSeconds is the longest that a unit waited for anything.
	LongestSeconds float64        `json:"longestSeconds"`
	Failures       map[string]int `json:"failures,omitempty"`
}

// tally is of the units that began between two looks.
type tally struct {
	results map[string]*loadResult
	// open units of it haven't ended.
	open sync.WaitGroup
}

// tallies count units.
type tallies struct {
	kinds   []string
	started time.Time
	mu      sync.Mutex
	now     *tally
}

// ended counts the end of a unit, and how long it waited at most.
type ended func(waited time.Duration, err error)

func newTallies(kinds []string) *tallies {
	t := &tallies{kinds: kinds, started: time.Now()}
	t.now = t.fresh()
	return t
}

func (t *tallies) fresh() *tally {
	out := &tally{results: map[string]*loadResult{}}
	for _, k := range t.kinds {
		out.results[k] = &loadResult{Kind: k, Started: t.started, Failures: map[string]int{}}
	}
	return out
}

// begin counts a unit, and what is returned counts its end.
func (t *tallies) begin(kind string) ended {
	t.mu.Lock()
	defer t.mu.Unlock()
	of := t.now
	of.open.Add(1)
	return func(waited time.Duration, err error) {
		defer of.open.Done()
		t.mu.Lock()
		defer t.mu.Unlock()
		of.results[kind].count(waited, err)
	}
}

// next begins a new tally and returns the one before once its units have ended.
func (t *tallies) next() (out []loadResult) {
	t.mu.Lock()
	before := t.now
	t.now = t.fresh()
	t.mu.Unlock()
	before.open.Wait()
	for _, k := range t.kinds {
		out = append(out, *before.results[k])
	}
	return out
}

func (r *loadResult) count(waited time.Duration, err error) {
	r.Done++
	r.LongestSeconds = max(r.LongestSeconds, waited.Seconds())
	if err == nil {
		return
	}
	r.Failed++
	text := withoutPorts(err.Error())
	if _, known := r.Failures[text]; !known && len(r.Failures) >= mostFailures {
		text = "others"
	}
	r.Failures[text]++
}
