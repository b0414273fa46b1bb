// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
)

const (
	// maxRequests bounds the requests under way; kubelet starts far fewer pods at once.
	maxRequests = 256
	// readTimeout bounds how long a client may take to say what it wants.
	readTimeout = 5 * time.Second
	// answerTimeout of ADD is a little less than the plugin waits, so that the plugin gets to know the reason.
	answerTimeout = (plugin.DefaultTimeoutSeconds - 2) * time.Second
)

// Handler decides about pods. Its errors are shown to the user in the pod's events.
type Handler interface {
	// Add returns once the pod may start.
	Add(ctx context.Context, req plugin.Request) (captured bool, err error)
	// Del is told that a pod's network goes.
	Del(ctx context.Context, req plugin.Request)
	// Check returns an error if the pod should be captured and isn't.
	Check(ctx context.Context, req plugin.Request) (captured bool, err error)
}

// Server answers the plugin.
type Server struct {
	// Socket is the path of the Unix socket. Only root can connect.
	Socket  string
	Handler Handler
	Log     logr.Logger
}

// Run serves until the context ends, and then until the requests under way are answered. It calls listening (unless
// nil) once the socket is there.
func (s *Server) Run(ctx context.Context, listening func()) error {
	l, err := listen(ctx, s.Socket)
	if err != nil {
		return err
	}
	if listening != nil {
		listening()
	}
	stop := context.AfterFunc(ctx, func() { _ = l.Close() })
	defer stop()
	slots := make(chan struct{}, maxRequests)
	var wg sync.WaitGroup
	defer wg.Wait()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept on %s: %w", s.Socket, err)
		}
		select {
		case slots <- struct{}{}:
			wg.Go(func() {
				defer func() { <-slots }()
				s.serve(ctx, conn)
			})
		default:
			s.answer(conn, plugin.Response{Error: "the agent has too many requests under way; this one will be tried again"})
			_ = conn.Close()
		}
	}
}

// listen makes the socket, accessible to root only, and puts it in place in one step: a client meets either no socket
// or one that answers.
func listen(ctx context.Context, path string) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return nil, fmt.Errorf("make the directory of the CNI socket: %w", err)
	}
	next := path + ".next"
	if err := os.Remove(next); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, fmt.Errorf("remove an old CNI socket: %w", err)
	}
	l, err := (&net.ListenConfig{}).Listen(ctx, "unix", next)
	if err != nil {
		return nil, fmt.Errorf("listen for the CNI plugin: %w", err)
	}
	// The name changes below, and a socket that is left behind refuses connections, which is all it should do.
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false)
	}
	if err := errors.Join(os.Chmod(next, 0o600), os.Rename(next, path)); err != nil {
		return nil, errors.Join(fmt.Errorf("put the CNI socket in place: %w", err), l.Close())
	}
	return l, nil
}

func (s *Server) serve(run context.Context, conn net.Conn) {
	defer func() { _ = conn.Close() }()
	var req plugin.Request
	if err := conn.SetReadDeadline(time.Now().Add(readTimeout)); err != nil {
		return
	}
	if err := plugin.ReadMessage(conn, &req); err != nil {
		s.answer(conn, plugin.Response{Error: "the agent can't read the request: " + err.Error()})
		return
	}
	ctx, cancel := context.WithTimeout(run, answerTimeout)
	defer cancel()
	log := s.Log.WithValues("command", req.Command, "pod", req.PodNamespace+"/"+req.PodName, "container", req.ContainerID)
	started := time.Now()
	captured, err := s.handle(ctx, req)
	answer := plugin.Response{Captured: captured}
	switch {
	case err != nil && run.Err() != nil:
		// The plugin asks again at once, where there is an agent that takes over.
		log.Info("left to another agent", "reason", err.Error())
		return
	case err != nil:
		answer.Error = err.Error()
		log.Info("the pod can't start yet", "reason", answer.Error, "after", time.Since(started).String())
	default:
		log.V(1).Info("answered the CNI plugin", "captured", captured, "after", time.Since(started).String())
	}
	s.answer(conn, answer)
}

func (s *Server) handle(ctx context.Context, req plugin.Request) (bool, error) {
	switch req.Command {
	case plugin.CommandAdd:
		return s.Handler.Add(ctx, req)
	case plugin.CommandCheck:
		return s.Handler.Check(ctx, req)
	case plugin.CommandDel:
		s.Handler.Del(ctx, req)
		return false, nil
	default:
		return false, fmt.Errorf("unknown command %.20q: plugin and agent are of different versions; restart the agent to "+
			"install its plugin", req.Command)
	}
}

func (s *Server) answer(conn net.Conn, answer plugin.Response) {
	_ = conn.SetWriteDeadline(time.Now().Add(readTimeout))
	if err := plugin.WriteMessage(conn, answer); err != nil {
		s.Log.V(1).Info("the CNI plugin didn't take the answer", "reason", err.Error())
	}
}
