// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package serve runs servers until a context ends. What a server is and who may reach it, its owner decides.
package serve

import (
	"context"
	"errors"
	"net"
	"net/http"
	"time"

	"google.golang.org/grpc"
)

// HTTP serves on a listener until the context ends, over TLS where the server has a configuration for it, and then lets
// the requests under way have some grace before it cuts them off. Any other end is an error.
func HTTP(ctx context.Context, s *http.Server, l net.Listener, grace time.Duration) error {
	run := func() error { return s.Serve(l) }
	if s.TLSConfig != nil {
		run = func() error { return s.ServeTLS(l, "", "") }
	}
	stop := func() {
		rest, cancel := context.WithTimeout(context.WithoutCancel(ctx), grace)
		defer cancel()
		if s.Shutdown(rest) != nil {
			_ = s.Close()
		}
	}
	return until(ctx, run, stop, http.ErrServerClosed)
}

// GRPC serves on a listener until the context ends, and then cuts what is under way: streams have no end of their own.
// Any other end is an error.
func GRPC(ctx context.Context, s *grpc.Server, l net.Listener) error {
	return until(ctx, func() error { return s.Serve(l) }, s.Stop, grpc.ErrServerStopped)
}

// until runs something that only stop ends.
func until(ctx context.Context, run func() error, stop func(), stopped error) error {
	ended := make(chan error, 1)
	go func() { ended <- run() }()
	select {
	case err := <-ended:
		return err
	case <-ctx.Done():
	}
	stop()
	if err := <-ended; !errors.Is(err, stopped) {
		return err
	}
	return nil
}
