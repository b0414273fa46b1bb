// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package resets

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net"
	"net/http"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"golang.org/x/net/netutil"
	"golang.org/x/time/rate"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/serve"
)

const (
	pathReset = "/reset"
	// mostAtOnce connections are reset for one question, which is mostBytes long at most: each is 200 bytes or so, and
	// takes the kernel some 20 µs.
	mostAtOnce = 1024
	mostBytes  = 512 << 10
	mostAnswer = 4 << 10
	// perSecond and atOnce bound the questions of one pod. All that a waypoint may have open are 16.
	perSecond, atOnce = 4, 20
	// mostCallers of a pod have the agent's attention at the same time; idle is for how long without a word.
	mostCallers = 4
	idle        = 2 * time.Second
)

// Kernel resets connections in a network namespace, by its path; kernel.Kernel is one.
type Kernel interface {
	EndProxied(path string, connections []capture.Proxied) (ended int, err error)
}

// Server is the node's side. Make it with NewServer.
type Server struct {
	kernel Kernel
	log    logr.Logger

	mu sync.Mutex
	of map[types.NamespacedName]*served
}

// served is a pod that may ask.
type served struct {
	// which tells it apart from others of its name, and from itself with another network.
	which, path string
	stop        context.CancelFunc
	done        chan struct{}
}

// NewServer serves nobody yet.
func NewServer(kernel Kernel, log logr.Logger) *Server {
	return &Server{kernel: kernel, log: log, of: map[types.NamespacedName]*served{}}
}

// Serves tells whether this pod of a name, with its present network, may ask.
func (s *Server) Serves(pod types.NamespacedName, which string) bool {
	s.mu.Lock()
	p := s.of[pod]
	s.mu.Unlock()
	if p == nil || p.which != which {
		return false
	}
	ns, err := netns.Open(p.path)
	if err == nil {
		err = ns.Close()
	}
	return !netns.Gone(err)
}

// Serve a pod in the network namespace at a path, until Drop. The one of its name before is served no more. What
// listens there keeps the namespace alive, so each pod that is served must be dropped.
func (s *Server) Serve(pod types.NamespacedName, which, path string) error {
	s.Drop(pod)
	l, err := listen(path)
	if err != nil {
		return fmt.Errorf("serve the waypoint %s: %w", pod, err)
	}
	ctx, stop := context.WithCancel(context.Background())
	p := &served{which: which, path: path, stop: stop, done: make(chan struct{})}
	limit := rate.NewLimiter(perSecond, atOnce)
	server := &http.Server{
		Handler:           s.handler(pod, path, limit),
		ReadHeaderTimeout: idle, ReadTimeout: idle, IdleTimeout: idle, MaxHeaderBytes: mostAnswer,
	}
	s.mu.Lock()
	s.of[pod] = p
	s.mu.Unlock()
	go func() {
		defer close(p.done)
		if err := serve.HTTP(ctx, server, netutil.LimitListener(l, mostCallers), 0); err != nil {
			s.log.Error(err, "a waypoint can't have connections reset any more", "pod", pod)
		}
	}()
	return nil
}

// Drop a pod that is gone, or is no waypoint.
func (s *Server) Drop(pod types.NamespacedName) {
	s.mu.Lock()
	p := s.of[pod]
	delete(s.of, pod)
	s.mu.Unlock()
	if p != nil {
		p.stop()
		<-p.done
	}
}

// Close drops all, so that another agent can serve them.
func (s *Server) Close() {
	s.mu.Lock()
	all := slices.Collect(maps.Keys(s.of))
	s.mu.Unlock()
	for _, pod := range all {
		s.Drop(pod)
	}
}

func listen(path string) (l net.Listener, err error) {
	ns, err := netns.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = ns.Close() }()
	err = ns.Do(func() (err error) {
		l, err = (&net.ListenConfig{}).Listen(context.Background(), "unix", names.ResetsSocket)
		return err
	})
	return l, err
}

func (s *Server) handler(pod types.NamespacedName, path string, limit *rate.Limiter) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("POST "+pathReset, func(w http.ResponseWriter, r *http.Request) {
		if err := limit.Wait(r.Context()); err != nil {
			http.Error(w, err.Error(), http.StatusTooManyRequests)
			return
		}
		var asked []capture.Proxied
		if err := json.NewDecoder(http.MaxBytesReader(w, r.Body, mostBytes)).Decode(&asked); err != nil {
			http.Error(w, "not a list of connections: "+err.Error(), http.StatusBadRequest)
			return
		}
		if len(asked) > mostAtOnce || slices.ContainsFunc(asked, notToWaypoint) {
			http.Error(w, fmt.Sprintf("at most %d connections are reset at once, to port %d", mostAtOnce, names.PortMTLS),
				http.StatusBadRequest)
			return
		}
		ended, err := s.kernel.EndProxied(path, asked)
		if err != nil {
			s.log.Error(err, "connections that policies refuse now stay open at a waypoint", "pod", pod)
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		s.log.V(1).Info("reset connections for a waypoint", "pod", pod, "connections", ended)
		_ = json.NewEncoder(w).Encode(ended)
	})
	return mux
}

// notToWaypoint is what no waypoint asks for.
func notToWaypoint(p capture.Proxied) bool { return p.Caller.Local.Port() != names.PortMTLS }
