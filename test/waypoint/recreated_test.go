// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// TestPoliciesChangeUnderLoad: to Envoy, a cluster whose TrafficPolicy changed is another cluster. What is under way
// ends as it would have, a connection that was passed on stays, and no request fails.
func TestPoliciesChangeUnderLoad(t *testing.T) {
	w := newWorld(t)
	e, _ := w.pod(appID, &echo{})
	let := make(held)
	slow := model.ServicePort{Namespace: "shop", Service: "slow", Port: 80}
	raw := model.ServicePort{Namespace: "shop", Service: "raw", Port: 5432}
	waiting, _ := w.pod(appID, let)
	tcp := model.Endpoint{Address: w.listen(func(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.CloseWrite() })}
	policy := func(n uint32) model.Sending {
		return model.Sending{
			Limits:   model.SendingLimits{Connections: new(100 + n)},
			Outliers: &model.Outliers{Consecutive5xx: 5 + n, MaxPercent: 50},
			Kept:     model.Kept{IdleTimeout: time.Minute, ConnectTimeout: time.Second + time.Duration(n)*time.Millisecond},
		}
	}
	change := func(n uint32) {
		w.sends(policy(n), e)
		w.upstream(model.Upstream{ServicePort: slow, Protocol: model.ProtocolHTTP, Sending: policy(n)}, waiting)
		u := model.Upstream{ServicePort: raw, Protocol: model.ProtocolTCP, Sending: policy(n)}
		w.upstream(u, tcp)
		inbound := resource(t, names.InboundCluster(raw.Namespace, raw.Service, raw.Port),
			upstream.Inbound(u, waypointID, headers))
		w.apply(inbound)
		if n > 0 {
			w.acknowledged(inbound)
		}
	}
	change(0)
	caller := w.caller(clientID)
	c, s := caller.client(t, w.serve(web, true, nil), nil), caller.client(t, w.serve(slow, true, nil), nil)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	conn, err := caller.dial(ctx, w.serve(raw, false, nil))
	require.NoError(t, err)
	defer func() { _ = conn.Close() }()
	echoes := func() {
		t.Helper()
		_, err := conn.Write([]byte("x"))
		require.NoError(t, err)
		_, err = io.ReadFull(conn, make([]byte, 1))
		require.NoError(t, err)
	}
	echoes()
	underWay := make(chan int)
	go func() {
		resp, err := s.Get("http://slow/")
		if err != nil {
			underWay <- 0
			return
		}
		_ = resp.Body.Close()
		underWay <- resp.StatusCode
	}()

	stop, answers := make(chan struct{}), make(chan map[int]int)
	remotes := map[string]bool{}
	go func() {
		got := map[int]int{}
		for {
			select {
			case <-stop:
				answers <- got
				return
			default:
				r := do(t, c, http.MethodPost, "http://web/")
				got[r.status]++
				remotes[r.Remote] = true
			}
		}
	}()
	const changes = 20
	for n := range uint32(changes) {
		change(1 + n)
		echoes()
	}
	close(stop)
	got := <-answers
	t.Logf("%d changes: %v on %d connections", changes, got, len(remotes))
	require.Len(t, got, 1)
	require.Positive(t, got[http.StatusOK])
	echoes()
	let <- struct{}{}
	require.Equal(t, http.StatusOK, <-underWay)
}
