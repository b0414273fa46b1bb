// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serve

import (
	"context"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(t.Context(), "tcp", "127.0.0.1:0")
	require.NoError(t, err)
	return l
}

// TestHTTPFinishesWhatIsUnderWay, and not what takes longer than the grace.
func TestHTTPFinishesWhatIsUnderWay(t *testing.T) {
	for name, tc := range map[string]struct {
		grace    time.Duration
		answered bool
	}{"in time": {time.Minute, true}, "too late": {time.Millisecond, false}} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithCancel(t.Context())
			gone := make(chan struct{})
			s := &http.Server{
				ReadHeaderTimeout: time.Minute,
				Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					cancel()
					if tc.answered {
						w.WriteHeader(http.StatusNoContent)
						return
					}
					<-r.Context().Done()
					close(gone)
				}),
			}
			l := listen(t)
			ended := make(chan error, 1)
			go func() { ended <- HTTP(ctx, s, l, tc.grace) }()
			req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+l.Addr().String(), http.NoBody)
			require.NoError(t, err)
			resp, err := http.DefaultClient.Do(req)
			if tc.answered {
				require.NoError(t, err)
				require.NoError(t, resp.Body.Close())
			} else {
				require.Error(t, err)
				<-gone
			}
			require.NoError(t, <-ended)
		})
	}
}

func TestGRPCCutsStreams(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, watching{})
	l := listen(t)
	ended := make(chan error, 1)
	go func() { ended <- GRPC(ctx, s, l) }()
	conn, err := grpc.NewClient(l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	require.NoError(t, err)
	t.Cleanup(func() { _ = conn.Close() })
	watch, err := healthpb.NewHealthClient(conn).Watch(t.Context(), &healthpb.HealthCheckRequest{})
	require.NoError(t, err)
	_, err = watch.Recv()
	require.NoError(t, err)
	cancel()
	_, err = watch.Recv()
	require.Error(t, err)
	require.NoError(t, <-ended)
}

// watching sends one answer and waits.
type watching struct {
	healthpb.UnimplementedHealthServer
}

func (watching) Watch(_ *healthpb.HealthCheckRequest, s healthpb.Health_WatchServer) error {
	if err := s.Send(&healthpb.HealthCheckResponse{}); err != nil {
		return err
	}
	<-s.Context().Done()
	return nil
}

// TestWhatEndsByItselfIsAnError: nobody asked for it.
func TestWhatEndsByItselfIsAnError(t *testing.T) {
	l := listen(t)
	require.NoError(t, l.Close())
	require.ErrorIs(t, HTTP(t.Context(), &http.Server{ReadHeaderTimeout: time.Minute}, l, time.Second), net.ErrClosed)
	require.Error(t, GRPC(t.Context(), grpc.NewServer(), l))
}
