// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package apiready

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"

	"github.com/go-logr/logr/funcr"
	"github.com/stretchr/testify/require"
	"k8s.io/client-go/rest"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestAwait: nobody listens at first, then the server is still starting, then it refuses: that is an answer.
func TestAwait(t *testing.T) {
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := l.Addr().String()
	require.NoError(t, l.Close())

	var said atomic.Int32
	log := funcr.New(func(_, _ string) { said.Add(1) }, funcr.Options{})
	got := make(chan error, 1)
	go func() { got <- Await(t.Context(), &rest.Config{Host: "http://" + address}, log) }()
	eventually.NoError(t, "it says that it waits", func() error {
		if said.Load() == 0 {
			return fmt.Errorf("nothing was said")
		}
		return nil
	})

	var asked atomic.Int32
	l, err = (&net.ListenConfig{}).Listen(t.Context(), "tcp", address)
	require.NoError(t, err)
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader([]int{http.StatusServiceUnavailable, http.StatusForbidden}[min(1, asked.Add(1)-1)])
	})}
	go func() { _ = s.Serve(l) }()
	t.Cleanup(func() { _ = s.Close() })
	require.NoError(t, <-got)
	require.EqualValues(t, 2, asked.Load(), "a server that is starting is waited for")
	require.EqualValues(t, 1, said.Load(), "it says so once a minute")
}

func TestAwaitEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	log := funcr.New(func(_, _ string) { cancel() }, funcr.Options{})
	require.ErrorIs(t, Await(ctx, &rest.Config{Host: "http://127.0.0.1:1"}, log), context.Canceled)
}
