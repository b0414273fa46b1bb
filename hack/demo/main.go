// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

// Command demo shows Fairway at work on the dev cluster: it prints what it does and what really came of it. Nothing of
// the output is written beforehand but the explanations; each step waits for the state it speaks of and fails if that
// doesn't come. It leaves everything running.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"syscall"
	"time"
)

// overall bounds the demo; a cold start compiles Kubernetes, which takes minutes.
const overall = 30 * time.Minute

func main() {
	down := flag.Bool("down", false, "remove what the demo made, and the cluster")
	running := flag.Bool("running", false, "cluster and Fairway run already: begin with the application")
	flag.Parse()
	if err := run(*down, *running); err != nil {
		fmt.Fprintf(os.Stderr, "\ndemo: %v\n", err)
		os.Exit(1)
	}
}

// step is a part of the demo.
type step struct {
	title string
	do    func(context.Context) error
}

func (d *demo) steps(running bool) []step {
	if running {
		return append([]step{{"The cluster that runs already", d.found}}, d.story()...)
	}
	return append([]step{
		{"A cluster: two nodes, real Kubernetes, no Docker", d.cluster},
		{"Fairway: images of this working tree, operator, Mesh", d.deploy},
	}, d.story()...)
}

func (d *demo) story() []step {
	return []step{
		{"An application: shop, reviews (two versions), stock", d.application},
		{"Before: anyone on the wire reads along", d.plain},
		{"The namespace joins the mesh, and no pod restarts", d.enrol},
		{"After: the same requests, and the wire says nothing", d.encrypted},
		{"The access log knows both ends by identity", d.accessLog},
		{"A route splits 90/10, and a waypoint appears for it", d.split},
		{"A header chooses the version", d.header},
		{"A timeout with retries hides a replica that hangs", d.retries},
		{"What kubectl describe says about the route", d.describe},
		{"A broken route says what is wrong, and harms nobody", d.broken},
		{"Who may call whom: first as a dry run", d.tryPolicy},
		{"Only shop may call reviews, only GET, and nothing else in the namespace", d.policies},
		{"fairway status", d.status},
	}
}

func run(down, running bool) error {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, overall)
	defer cancel()
	d, err := newDemo()
	if err != nil {
		return err
	}
	if os.Geteuid() != 0 {
		return errors.New("the dev cluster needs root: run it with sudo")
	}
	if down {
		return d.remove(ctx)
	}
	for _, s := range d.steps(running) {
		d.ui.title(s.title)
		if err := s.do(ctx); err != nil {
			d.ui.bad("%v", err)
			d.troubled()
			return fmt.Errorf("%s: this step failed", s.title)
		}
	}
	d.next()
	return nil
}
