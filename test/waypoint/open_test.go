// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"errors"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/connections"
	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// soon bounds how long a connection may outlive the acknowledgement of the guards that refuse it: a second, on a
// machine that has time for its tests. It is far below a minute, after which proxies tell again what is open.
const soon = 10 * time.Second

// here is this network namespace, which is the waypoint's.
type here struct{}

func (here) Netns(string) []string { return []string{"/proc/self/ns/net"} }

// keep has what is open end when guards narrow, as the agent does.
func (w *world) keep() {
	w.keeper = connections.NewWaypoint(logr.Discard(), "shop/waypoint-0")
	w.counter.Open = w.keeper.Told
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = w.keeper.Run(ctx, new(kernel.Kernel), here{})
	}()
	w.t.Cleanup(func() { cancel(); <-done })
}

// accepted is what the relay tells the keeper.
func (w *world) accepted(a xds.Ack) {
	if a.Error != "" || a.TypeURL != xds.TypeExtension {
		return
	}
	if r, ok := w.cache.Get(scope.Key(a.TypeURL, a.Name)); ok && r.Version() == a.Version {
		w.keeper.Accepted(a.Name, r.Version(), r.Any())
	}
}

// session is an open connection to a server that sends back what it gets.
type session struct{ net.Conn }

func (w *world) session(id, dialled string) session {
	w.t.Helper()
	c, err := w.caller(id).dial(w.t.Context(), dialled)
	require.NoError(w.t, err)
	w.t.Cleanup(func() { _ = c.Close() })
	s := session{c}
	s.alive(w.t)
	return s
}

func (s session) alive(t testing.TB) {
	t.Helper()
	require.NoError(t, s.SetDeadline(time.Now().Add(patience)))
	_, err := io.WriteString(s, "x")
	require.NoError(t, err)
	_, err = io.ReadFull(s, make([]byte, 1))
	require.NoError(t, err)
}

func (s session) ends(bound time.Time) error {
	if err := s.SetDeadline(bound); err != nil {
		return err
	}
	switch _, err := s.Read(make([]byte, 1)); {
	case err == nil:
		return errors.New("there is more to read")
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errors.New("it is still open")
	}
	return nil
}

// TestOpenTCPMeetsNewGuards: once the waypoint goes by other guards, the connections of TCP ports that they refuse end,
// and no others: not those of other callers or ports, nor where the port itself is served no longer.
func TestOpenTCPMeetsNewGuards(t *testing.T) {
	w := newWorld(t)
	echoes := func(c *net.TCPConn) { _, _ = io.Copy(c, c); _ = c.Close() }
	for way, db := range w.inAndOut(model.ProtocolTCP, echoes) {
		cache := model.ServicePort{Namespace: "shop", Service: "cache-" + db.Service, Port: 80}
		w.upstream(model.Upstream{ServicePort: cache, Protocol: model.ProtocolTCP},
			model.Endpoint{Address: w.listen(echoes)})
		ports := map[string]string{"cache": w.serve(cache, false, nil)}
		ports["db"] = w.serve(db, false, nil)
		served := w.ports
		tried := accessPolicy("tried", true, fromAccount("", nil))
		tried.DryRun = true
		allows := func(ids ...string) model.AccessPolicy {
			var rules []model.AccessRule
			for _, id := range ids {
				rules = append(rules, fromAccount(id, nil))
			}
			return accessPolicy("a", false, rules...)
		}
		const all = "client cache, client db, other cache, other db"
		for _, tc := range []struct {
			name   string
			guards []model.Guard // of db
			gone   bool
			stay   string
		}{
			{"an account", onConnections(allows(clientID)), false, "client cache, client db, other cache"},
			{
				"deny an account", onConnections(accessPolicy("d", true, fromAccount(clientID, nil))), false,
				"client cache, other cache, other db",
			},
			{"the mesh", []model.Guard{{DefaultDeny: true}}, false, "client cache, other cache"},
			{
				"one of two guards", append(onConnections(allows(clientID)), onConnections(allows(clientID, otherID))...), false,
				"client cache, client db, other cache",
			},
			{"requests", onRequests(allows()), false, "client cache, other cache"},
			{"what is only tried", onConnections(tried), false, all},
			{"what refuses nobody who is there", onConnections(allows(clientID, otherID)), false, all},
			{"a port that goes", nil, true, all},
		} {
			t.Run(way+", "+tc.name, func(t *testing.T) {
				w.ports = served
				enforced := func(guards []model.Guard, ofCache ...model.Guard) {
					w.guards[db], w.guards[cache] = guards, ofCache
					u := w.tcpGuards()
					w.apply(u)
					w.acknowledged(u)
				}
				enforced(nil)
				open := map[string]session{}
				for name, dialled := range ports {
					open["client "+name], open["other "+name] = w.session(clientID, dialled), w.session(otherID, dialled)
				}
				last := w.session(appID, ports["cache"])
				if tc.gone {
					w.ports = w.ports[:len(w.ports)-1]
				}
				enforced(tc.guards)
				bound := time.Now().Add(soon)
				for who, s := range open {
					if !strings.Contains(tc.stay, who) {
						require.NoError(t, s.ends(bound), who)
					}
				}
				t.Logf("all have ended after %s", time.Since(bound.Add(-soon)))
				// By the end of this one all have been asked about.
				enforced(tc.guards, onConnections(accessPolicy("last", true, fromAccount(appID, nil)))...)
				require.NoError(t, last.ends(time.Now().Add(soon)))
				for who, s := range open {
					if strings.Contains(tc.stay, who) {
						s.alive(t)
					}
					_ = s.Close()
				}
			})
		}
	}
}
