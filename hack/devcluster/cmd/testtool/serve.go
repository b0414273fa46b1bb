// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
)

// drainTime bounds how long open requests may take once the server was told to stop.
const drainTime = 5 * time.Second

// farewell is how long a server that was told to stop asks those who use kept connections to end these, before it ends
// those that nobody uses: a request that comes to a connection just when its server ends it is reset, whatever is
// between.
const farewell = time.Second

// answer is what the server says about itself and about the request.
type answer struct {
	Name    string      `json:"name"`
	Pod     string      `json:"pod"`
	Method  string      `json:"method"`
	Path    string      `json:"path"`
	Host    string      `json:"host"`
	Proto   string      `json:"proto"`
	Remote  string      `json:"remote"`
	Headers http.Header `json:"headers"`
}

// server answers with its own name and with what it was asked.
type server struct {
	name, pod string
	delay     time.Duration
	failRate  float64
	pages     []string
}

func serve() *cobra.Command {
	s := &server{}
	var ports []int
	var certificate string
	cmd := &cobra.Command{
		Use: "serve", Short: "HTTP/1.1 and h2c server that answers with its name and the request, as JSON",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if s.failRate < 0 || s.failRate > 1 {
				return errors.New("--fail-rate is a share between 0 and 1")
			}
			s.pod, _ = os.Hostname()
			handler, err := s.handler()
			if err != nil {
				return err
			}
			return listenAll(cmd.Context(), handler, ports, certificate)
		},
	}
	cmd.Flags().StringVar(&s.name, "name", "tool", "what the server calls itself")
	cmd.Flags().IntSliceVar(&ports, "port", []int{8080}, "port to listen on (repeatable)")
	cmd.Flags().DurationVar(&s.delay, "delay", 0, "wait this long before every answer")
	cmd.Flags().Float64Var(&s.failRate, "fail-rate", 0, "share of requests to answer with 503")
	cmd.Flags().StringArrayVar(&s.pages, "page", nil, "path=text: answer this path with the text (repeatable)")
	cmd.Flags().StringVar(&certificate, "certificate", "", "speak TLS with this certificate and key: PEM, in base64")
	return cmd
}

func (s *server) handler() (http.Handler, error) {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("/grpc.health.v1.Health/Check", healthy)
	mux.Handle(methodEcho, echoStreams())
	for _, page := range s.pages {
		path, text, ok := strings.Cut(page, "=")
		if !ok || !strings.HasPrefix(path, "/") {
			return nil, fmt.Errorf("--page %q: want /path=text", page)
		}
		mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
	}
	mux.HandleFunc("/", s.echo)
	return mux, nil
}

// healthy answers a gRPC health check with SERVING, for probes of that kind
// (https://github.com/grpc/grpc/blob/master/doc/health-checking.md).
func healthy(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/grpc")
	w.Header().Set("Trailer", "Grpc-Status")
	// One message, not compressed, of two bytes: field 1, the status, is 1.
	_, _ = w.Write([]byte{0, 0, 0, 0, 2, 1 << 3, 1})
	w.Header().Set("Grpc-Status", "0")
}

// listenAll serves at several ports until the context ends, by TLS with a certificate as flags have it if there is one.
func listenAll(ctx context.Context, handler http.Handler, ports []int, certificate string) error {
	var config *tls.Config
	if certificate != "" {
		pair, err := keyPair(certificate)
		if err != nil {
			return err
		}
		config = &tls.Config{Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12}
	}
	g, ctx := errgroup.WithContext(ctx)
	for _, port := range ports {
		g.Go(func() error { return listen(ctx, handler, port, config) })
	}
	return g.Wait()
}

func listen(ctx context.Context, handler http.Handler, port int, config *tls.Config) error {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(true)
	protocols.SetUnencryptedHTTP2(true)
	h := &http.Server{
		Addr: fmt.Sprintf(":%d", port), Protocols: protocols, TLSConfig: config, ReadHeaderTimeout: 10 * time.Second,
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if ctx.Err() != nil {
				w.Header().Set("Connection", "close") // of HTTP/2, too: Go sends GOAWAY for it
			}
			handler.ServeHTTP(w, r)
		}),
	}
	stopped := make(chan error, 1)
	context.AfterFunc(ctx, func() {
		<-time.After(farewell)
		drain, cancel := context.WithTimeout(context.Background(), drainTime)
		defer cancel()
		stopped <- h.Shutdown(drain)
	})
	serve := h.ListenAndServe
	if config != nil {
		serve = func() error { return h.ListenAndServeTLS("", "") }
	}
	if err := serve(); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return <-stopped
}

func (s *server) echo(w http.ResponseWriter, r *http.Request) {
	if s.delay > 0 {
		select {
		case <-time.After(s.delay):
		case <-r.Context().Done():
			return
		}
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Served-By", s.name)
	if rand.Float64() < s.failRate {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	encoder := json.NewEncoder(w)
	encoder.SetIndent("", "  ")
	// A client that is gone needs no answer.
	_ = encoder.Encode(answer{
		Name: s.name, Pod: s.pod, Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Proto: r.Proto,
		Remote: r.RemoteAddr, Headers: r.Header,
	})
}
