// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"io"
	"net"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// TestGuardsOfTCPPorts: who is refused gets not a byte of a server that speaks first, and the server sees nobody.
func TestGuardsOfTCPPorts(t *testing.T) {
	w := newWorld(t)
	var connected atomic.Int32
	for name, p := range w.inAndOut(model.ProtocolTCP, func(c *net.TCPConn) {
		connected.Add(1)
		_, _ = io.WriteString(c, "hello")
		_, _ = io.Copy(c, c)
		_ = c.Close()
	}) {
		other := model.ServicePort{Namespace: "shop", Service: "unguarded-" + p.Service, Port: 80}
		w.upstream(model.Upstream{ServicePort: other, Protocol: model.ProtocolTCP},
			model.Endpoint{Address: w.listen(func(c *net.TCPConn) { _, _ = io.WriteString(c, "hello"); _ = c.Close() })})
		dialled, unguarded := w.serve(p, false, nil), w.serve(other, false, nil)
		only := func(ids ...string) []model.Guard {
			var rules []model.AccessRule
			for _, id := range ids {
				rules = append(rules, fromAccount(id, nil))
			}
			return onConnections(accessPolicy("a", false, rules...))
		}
		tried := accessPolicy("tried", true, fromAccount("", nil))
		tried.DryRun = true
		for _, tc := range []struct {
			name          string
			guards        []model.Guard
			client, other bool
			verdict       string
		}{
			{"no policy", nil, true, true, ""},
			{"an account", only(clientID), true, false, "no ALLOW policy of level Network matches"},
			{"two accounts", only(clientID, otherID), true, true, ""},
			{"two guards", append(only(clientID), only(otherID)...), false, false, "no ALLOW policy of level Network matches"},
			{
				"denied", onConnections(accessPolicy("d", true, fromAccount(otherID, nil))), true, false,
				"DENY shop/d rule 0",
			},
			{"the mesh", []model.Guard{{DefaultDeny: true}}, false, false, "no ALLOW policy of level Network matches"},
			{
				"requests", onRequests(accessPolicy("r", false, fromAccount("", pathIs(model.MatchPrefix, "/")))), false, false,
				"no ALLOW policy of level Application matches",
			},
			{"tried", onConnections(tried), true, true, ""},
		} {
			t.Run(name+", "+tc.name, func(t *testing.T) {
				w.guards[p] = tc.guards
				u := w.tcpGuards()
				w.apply(u)
				w.acknowledged(u)
				for id, want := range map[string]bool{clientID: tc.client, otherID: tc.other} {
					before := connected.Load()
					got, err := greeting(t, w.caller(id), dialled)
					if want {
						require.NoError(t, err)
						require.Equal(t, "hello", got)
						continue
					}
					require.Error(t, err)
					require.Empty(t, got)
					require.Equal(t, before, connected.Load(), "the server saw %s", id)
					w.accessLog(map[string]any{"source": id, "verdict": tc.verdict, "dialled": dialled, "sent": 0})
				}
				got, err := greeting(t, w.caller(otherID), unguarded)
				require.NoError(t, err)
				require.Equal(t, "hello", got)
			})
		}
	}
}

// TestRefusedConnectionsAreCounted, those that would be, too.
func TestRefusedConnectionsAreCounted(t *testing.T) {
	w := newWorld(t)
	p := model.ServicePort{Namespace: "shop", Service: "db", Port: 80}
	w.upstream(model.Upstream{ServicePort: p, Protocol: model.ProtocolTCP},
		model.Endpoint{Address: w.listen(func(c *net.TCPConn) { _, _ = io.WriteString(c, "hello"); _ = c.Close() })})
	tried := accessPolicy("tried", true, fromAccount(clientID, nil))
	tried.DryRun = true
	w.guards[p] = onConnections(accessPolicy("d", true, fromAccount(otherID, nil)), tried)
	dialled := w.serve(p, false, nil)
	for _, id := range []string{clientID, otherID, otherID} {
		_, _ = greeting(t, w.caller(id), dialled)
	}
	for _, want := range []string{
		`{destination="80.db.shop",verdict="DENY shop/d rule 0",dry_run="false"} 2`,
		`{destination="80.db.shop",verdict="DENY shop/tried rule 0",dry_run="true"} 1`,
	} {
		eventually.True(t, want, func() bool {
			return strings.Contains(w.ask("/stats/prometheus"), "envoy_fairway_authorization_total"+want)
		})
	}
}

// TestNotListedIsClosed: the guards of a port are gone before the listener knows that it is no longer served.
func TestNotListedIsClosed(t *testing.T) {
	w := newWorld(t)
	p := model.ServicePort{Namespace: "shop", Service: "db", Port: 80}
	w.upstream(model.Upstream{ServicePort: p, Protocol: model.ProtocolTCP},
		model.Endpoint{Address: w.listen(func(c *net.TCPConn) { _, _ = io.WriteString(c, "hello"); _ = c.Close() })})
	dialled := w.serve(p, false, nil)
	got, err := greeting(t, w.caller(clientID), dialled)
	require.NoError(t, err)
	require.Equal(t, "hello", got)
	w.ports = nil
	u := w.tcpGuards()
	w.apply(u)
	w.acknowledged(u)
	_, err = greeting(t, w.caller(clientID), dialled)
	require.Error(t, err)
}

// greeting is what a server says first.
func greeting(t *testing.T, c *caller, dialled string) (string, error) {
	t.Helper()
	conn, err := c.dial(t.Context(), dialled)
	if err != nil {
		return "", err
	}
	defer func() { _ = conn.Close() }()
	_ = conn.SetDeadline(time.Now().Add(patience))
	hello := make([]byte, 5)
	n, err := io.ReadFull(conn, hello)
	return string(hello[:n]), err
}
