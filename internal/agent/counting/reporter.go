// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package counting

import (
	"cmp"
	"context"
	"time"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"github.com/go-logr/logr"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"

	"github.com/fairway-mesh/fairway/internal/counts"
)

const (
	// reportEvery is how often the operator is told, if there is anything to tell. It takes no more (counts.Server).
	reportEvery = 15 * time.Second
	// reportPatience bounds one report.
	reportPatience = 10 * time.Second
)

// Reporter tells the operator what a Counter has counted.
type Reporter struct {
	Counter *Counter
	// Besides are other counts that have changed, or all of them; nil: there are none.
	Besides func(all bool) []counts.Count
	// Connected is since when the agent has its present stream to the operator, for another replica knows nothing yet.
	Connected func() (since time.Time, connected bool)
	// every is reportEvery unless a test says else.
	every time.Duration
	Log   logr.Logger
}

// Run reports over the agent's connection until the context ends.
func (r *Reporter) Run(ctx context.Context, conn *grpc.ClientConn) error {
	tick := time.NewTicker(cmp.Or(r.every, reportEvery))
	defer tick.Stop()
	client := clientOf(conn)
	var told time.Time // the stream on which all was told
	failing := false
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
		since, connected := r.Connected()
		if !connected {
			continue
		}
		all := !since.Equal(told)
		what := r.Counter.Take(all)
		if r.Besides != nil {
			what = append(what, r.Besides(all)...)
		}
		err := send(ctx, client, what)
		if err == nil {
			told, failing = since, false
			continue
		}
		told = time.Time{}
		if !failing && ctx.Err() == nil {
			failing = true
			r.Log.Info("the operator can't be told of callers, trying again", "reason", status.Convert(err).Message())
		}
	}
}

// send says nothing if there is nothing to say.
func send(ctx context.Context, client metricsv3.MetricsServiceClient, what []counts.Count) error {
	if len(what) == 0 {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, reportPatience)
	defer cancel()
	s, err := client.StreamMetrics(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&metricsv3.StreamMetricsMessage{EnvoyMetrics: counts.Families(what)}); err != nil {
		_, err = s.CloseAndRecv() // which says why
		return err
	}
	_, err = s.CloseAndRecv()
	return err
}

func clientOf(conn *grpc.ClientConn) metricsv3.MetricsServiceClient {
	return metricsv3.NewMetricsServiceClient(conn)
}
