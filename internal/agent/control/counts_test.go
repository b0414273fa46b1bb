// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package control_test

import (
	"testing"
	"time"

	metricsv3 "github.com/envoyproxy/go-control-plane/envoy/service/metrics/v3"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/identity/auth"
	"github.com/fairway-mesh/fairway/internal/identity/identitytest"
)

// TestCountsAreOfWhoProvesIt: whose they are follows from the token, over the same TLS as xDS; a pod without a scope
// tells nothing.
func TestCountsAreOfWhoProvesIt(t *testing.T) {
	w := newWorld(t)
	w.cluster.Run(auth.Pod{Namespace: "shop", Name: "cart-1", UID: "c1", Node: "n1", ServiceAccount: "cart"})
	w.write(w.bundleFile, string(w.ca.Bundle().PEM()))
	tell := func() error {
		conn, err := w.operator.DialGRPC("passthrough:///" + w.xds)
		require.NoError(t, err)
		defer func() { _ = conn.Close() }()
		s, err := metricsv3.NewMetricsServiceClient(conn).StreamMetrics(t.Context())
		require.NoError(t, err)
		_ = s.Send(&metricsv3.StreamMetricsMessage{EnvoyMetrics: counts.Families([]counts.Count{{
			Series: counts.Series{Kind: counts.Plaintext, Destination: "shop/cart-1"}, Value: 1, Since: time.Now(),
		}})})
		_, err = s.CloseAndRecv() // which says what became of it
		return err
	}
	w.write(w.tokenFile, "made up")
	require.Error(t, tell())
	w.write(w.tokenFile, w.cluster.Token(auth.Caller{
		Namespace: "shop", PodName: "cart-1", PodUID: "c1", NodeName: "n1", ServiceAccount: "cart",
	}, time.Hour))
	require.Error(t, tell())
	agent := identitytest.NodeAgent("n1")
	w.write(w.tokenFile, w.cluster.Token(agent, time.Hour))
	require.NoError(t, tell())
	require.Equal(t, counts.Source{Scope: "node/n1", Proxy: agent.PodUID}, <-w.counted)
}
