// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// maxBody is how much of an answer is read.
const maxBody = 1 << 20

// client asks one URL a number of times.
type client struct {
	http     *http.Client
	method   string
	headers  http.Header
	url      string
	interval time.Duration
}

// options of get, as its flags have them.
type options struct {
	method                 string
	headers                []string
	requests, parallel     int
	timeout, interval      time.Duration
	noKeepAlive, http2Only bool
	includeHeaders         bool
}

func get() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use: "get URL", Short: "Ask a URL; with -n, count the answers by status and server",
		Long: "Ask a URL and print status and body. With -n N ask N times and print, per status and server name, how many\n" +
			"answers there were. Ends with an error where a request got no answer at all.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.client(args[0])
			if err != nil {
				return err
			}
			if o.requests == 1 {
				return c.once(cmd.Context(), cmd.OutOrStdout(), o.includeHeaders)
			}
			return c.many(cmd.Context(), cmd.OutOrStdout(), o.requests, o.parallel)
		},
	}
	f := cmd.Flags()
	f.IntVarP(&o.requests, "requests", "n", 1, "how many times to ask")
	f.IntVarP(&o.parallel, "parallel", "c", 1, "how many at a time")
	f.StringVarP(&o.method, "method", "X", http.MethodGet, "HTTP method")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "key:value (repeatable)")
	f.DurationVar(&o.timeout, "timeout", 5*time.Second, "give up on a request after this time")
	f.DurationVar(&o.interval, "interval", 0, "wait between requests")
	f.BoolVar(&o.noKeepAlive, "no-keepalive", false, "a new connection per request")
	f.BoolVar(&o.http2Only, "http2", false, "HTTP/2 without TLS (h2c)")
	f.BoolVarP(&o.includeHeaders, "include", "i", false, "print the answer's headers")
	return cmd
}

func (o *options) client(url string) (*client, error) {
	if o.requests < 1 || o.parallel < 1 {
		return nil, fmt.Errorf("-n and -c are at least 1")
	}
	c := &client{method: o.method, headers: http.Header{}, url: url, interval: o.interval}
	if !strings.Contains(url, "://") {
		c.url = "http://" + url
	}
	for _, h := range o.headers {
		key, value, ok := strings.Cut(h, ":")
		if !ok {
			return nil, fmt.Errorf("-H %q: want key:value", h)
		}
		c.headers.Add(strings.TrimSpace(key), strings.TrimSpace(value))
	}
	transport := &http.Transport{DisableKeepAlives: o.noKeepAlive, MaxIdleConnsPerHost: o.parallel}
	if o.http2Only {
		transport.Protocols = &http.Protocols{}
		transport.Protocols.SetUnencryptedHTTP2(true)
	}
	// Redirects are answers to look at, not to follow.
	c.http = &http.Client{
		Timeout: o.timeout, Transport: transport,
		CheckRedirect: func(*http.Request, []*http.Request) error {
			return http.ErrUseLastResponse
		},
	}
	return c, nil
}

func (c *client) ask(ctx context.Context) (*http.Response, []byte, error) {
	r, err := http.NewRequestWithContext(ctx, c.method, c.url, nil)
	if err != nil {
		return nil, nil, err
	}
	r.Header = c.headers.Clone()
	if host := r.Header.Get("Host"); host != "" {
		r.Host = host
	}
	resp, err := c.http.Do(r)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxBody))
	return resp, body, err
}

func (c *client) once(ctx context.Context, out io.Writer, headers bool) error {
	resp, body, err := c.ask(ctx)
	if err != nil {
		return err
	}
	fmt.Fprintln(out, resp.StatusCode)
	if headers {
		for _, key := range slices.Sorted(maps.Keys(resp.Header)) {
			fmt.Fprintf(out, "%s: %s\n", key, strings.Join(resp.Header[key], ", "))
		}
		fmt.Fprintln(out)
	}
	_, err = out.Write(body)
	return err
}

// many prints a line "COUNT STATUS NAME" per kind of answer, the most frequent first.
func (c *client) many(ctx context.Context, out io.Writer, n, parallel int) error {
	var mu sync.Mutex
	counts := map[string]int{}
	failures := 0
	var g errgroup.Group
	g.SetLimit(parallel)
	for i := 0; i < n && ctx.Err() == nil; i++ {
		if i > 0 && c.interval > 0 {
			select {
			case <-time.After(c.interval):
			case <-ctx.Done():
			}
		}
		g.Go(func() error {
			kind, failed := c.kind(ctx)
			mu.Lock()
			defer mu.Unlock()
			counts[kind]++
			if failed {
				failures++
			}
			return nil
		})
	}
	_ = g.Wait()
	kinds := slices.SortedFunc(maps.Keys(counts), func(a, b string) int {
		return cmp.Or(cmp.Compare(counts[b], counts[a]), cmp.Compare(a, b))
	})
	for _, kind := range kinds {
		fmt.Fprintf(out, "%d %s\n", counts[kind], kind)
	}
	if failures > 0 {
		return fmt.Errorf("%d of %d requests got no answer", failures, n)
	}
	return nil
}

// kind asks once and says which kind of answer came: status and server name, or the error.
func (c *client) kind(ctx context.Context) (string, bool) {
	resp, body, err := c.ask(ctx)
	if err != nil {
		return "error " + err.Error(), true
	}
	var a answer
	_ = json.Unmarshal(body, &a) // an answer of another server has no name
	return strings.TrimSpace(fmt.Sprintf("%d %s", resp.StatusCode, a.Name)), false
}
