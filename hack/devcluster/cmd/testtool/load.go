// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// loadKinds are ways to use connections: what one worker uses for them.
var loadKinds = []struct {
	name string
	make func(o *loadOptions) worker
}{
	{"kept", func(o *loadOptions) worker { return newAsker(o, false) }},
	{"new", func(o *loadOptions) worker { return newAsker(o, true) }},
	{"grpc", func(o *loadOptions) worker { return newStreamer(o) }},
	{"tcp", func(o *loadOptions) worker { return sender{o} }},
}

// worker does one unit after the other: each comes to its end as it should, or is an error. Whatever it waits for, a
// connection, an answer or more of one, it waits for by w.
type worker interface {
	unit(ctx context.Context, w *waits) error
	close()
}

type loadOptions struct {
	http, tcp       string
	kinds           []string
	workers         int
	after, every    time.Duration
	stream, timeout time.Duration
}

func load() *cobra.Command {
	var o loadOptions
	var control string
	cmd := &cobra.Command{
		Use: "load", Short: "Use connections in several ways, and count what fails",
		Long: "Use connections in several ways at a time. Who asks for http://CONTROL/results gets what came of all units\n" +
			"that began since the last time, once the last of them has ended: a line of JSON for each kind, with the longest\n" +
			"time that anything was waited for, and the time at which this process began. Kinds: kept (requests on\n" +
			"connections that are kept), new (a connection for each request), grpc (streams that send and get back a message\n" +
			"every 20ms), tcp (connections that send and get back random bytes, and both sides' ends).",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.serve(cmd.Context(), control) },
	}
	f := cmd.Flags()
	f.StringVar(&control, "control", "127.0.0.1:8090", "address that tells results")
	f.StringVar(&o.http, "http", "", "host:port of a server of `serve`")
	f.StringVar(&o.tcp, "tcp", "", "host:port of a server of `tcp-mirror`")
	f.StringSliceVar(&o.kinds, "kinds", []string{"kept", "new", "grpc", "tcp"}, "kinds of load")
	f.IntVar(&o.workers, "workers", 2, "how many of each kind at a time")
	f.DurationVar(&o.after, "after", 0, "begin this long after the start")
	f.DurationVar(&o.every, "every", 10*time.Millisecond,
		"begin a unit this long after the one before began, if that has ended")
	f.DurationVar(&o.stream, "stream", 2*time.Second, "how long a stream or connection is used")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "a unit that takes longer than it should by this time failed")
	return cmd
}

// serve runs the load until the context ends, and tells what comes of it.
func (o *loadOptions) serve(ctx context.Context, control string) error {
	count := newTallies(o.kinds)
	mux := http.NewServeMux()
	mux.HandleFunc("/results", func(w http.ResponseWriter, _ *http.Request) {
		encoder := json.NewEncoder(w)
		for _, r := range count.next() {
			_ = encoder.Encode(r)
		}
	})
	h := &http.Server{Addr: control, Handler: mux, ReadHeaderTimeout: time.Second}
	context.AfterFunc(ctx, func() { _ = h.Close() })
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		if err := h.ListenAndServe(); !errors.Is(err, http.ErrServerClosed) {
			return err
		}
		return nil
	})
	for _, k := range loadKinds {
		if !slices.Contains(o.kinds, k.name) {
			continue
		}
		for range o.workers {
			g.Go(func() error {
				o.work(ctx, k.make(o), func() ended { return count.begin(k.name) })
				return nil
			})
		}
	}
	return g.Wait()
}

// work does units until the context ends.
func (o *loadOptions) work(ctx context.Context, w worker, begin func() ended) {
	defer w.close()
	select {
	case <-time.After(o.after):
	case <-ctx.Done():
		return
	}
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for ctx.Err() == nil {
		done := begin()
		// What has begun is not cut by the end of the load.
		unit, cancel := context.WithTimeout(context.WithoutCancel(ctx), o.stream+o.timeout)
		var waited waits
		err := w.unit(unit, &waited)
		done(waited.longest, err)
		cancel()
		select {
		case <-tick.C:
		case <-ctx.Done():
		}
	}
}

// waits are what one unit waits for, one thing after the other.
type waits struct{ longest time.Duration }

// of something that f waits for.
func (w *waits) of(f func() error) error {
	start := time.Now()
	err := f()
	w.longest = max(w.longest, time.Since(start))
	return err
}

// withoutPorts leaves out of an error what differs from one failure to the next: the client's port.
func withoutPorts(text string) string {
	words := strings.Fields(text)
	for n, w := range words {
		client, server, both := strings.Cut(w, "->")
		if host, _, err := net.SplitHostPort(client); both && err == nil {
			words[n] = host + "->" + server
		}
	}
	return strings.Join(words, " ")
}

// asker asks by HTTP/1.1.
type asker struct {
	client
	reset atomic.Bool // some connection was
}

func newAsker(o *loadOptions, fresh bool) *asker {
	a := &asker{client: client{method: http.MethodGet, url: "http://" + o.http + "/"}}
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		c, err := (&net.Dialer{}).DialContext(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return watched{c, &a.reset}, nil
	}
	a.http = &http.Client{Transport: &http.Transport{DisableKeepAlives: fresh, DialContext: dial}, Timeout: o.timeout}
	return a
}

func (a *asker) unit(ctx context.Context, w *waits) error {
	var resp *http.Response
	err := w.of(func() (err error) {
		resp, _, err = a.ask(ctx)
		return err
	})
	switch reset := a.reset.Swap(false); {
	case err != nil:
		return err
	case resp.StatusCode != http.StatusOK:
		return fmt.Errorf("status %d", resp.StatusCode)
	case reset:
		return errors.New("a kept connection was reset")
	}
	return nil
}

// watched remembers that a connection was reset: Go's client asks again on another one, and says nothing of it.
type watched struct {
	net.Conn
	reset *atomic.Bool
}

func (w watched) Read(p []byte) (int, error) {
	n, err := w.Conn.Read(p)
	if errors.Is(err, syscall.ECONNRESET) {
		w.reset.Store(true)
	}
	return n, err
}

func (a *asker) close() { a.http.CloseIdleConnections() }
