// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/serve"
)

// LoopbackAddress is where operator and agents answer on the loopback interface.
var LoopbackAddress = net.JoinHostPort("127.0.0.1", strconv.Itoa(names.PortAdmin))

// addressedLocally refuses requests whose Host is a name: on the loopback address that is a browser which was led here
// under the name of another site.
func addressedLocally(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "use the address 127.0.0.1 or the name localhost", http.StatusMisdirectedRequest)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// Serve answers on a TCP address until ctx ends, then lets what is under way finish for a moment.
func Serve(ctx context.Context, address string, h http.Handler) error {
	l, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	return serveOn(ctx, l, h)
}

func serveOn(ctx context.Context, l net.Listener, h http.Handler) error {
	s := &http.Server{
		Handler:           h,
		ReadHeaderTimeout: 5 * time.Second,
		WriteTimeout:      time.Minute,
		IdleTimeout:       2 * time.Minute,
		MaxHeaderBytes:    16 << 10,
	}
	if err := serve.HTTP(ctx, s, l, time.Second); err != nil {
		return fmt.Errorf("introspection: %w", err)
	}
	return nil
}
