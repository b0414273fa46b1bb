// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// turning is a port whose protocol nothing declares, with the resources that an engine makes of it: one cluster, which
// is another one while the port has a route.
type turning struct {
	*world
	port model.ServicePort
}

// turn is one revision, as when a route comes or goes.
func (p turning) turn(isHTTP bool) {
	p.t.Helper()
	table := model.RouteTable{Attachment: model.Attachment{Port: p.port}, Protocol: model.ProtocolTCP}
	requests := names.ServicePort(p.port.Namespace, p.port.Service, p.port.Port)
	connections := names.InboundCluster(p.port.Namespace, p.port.Service, p.port.Port)
	gone := xds.Gone(xds.ID{TypeURL: xds.TypeCluster, Name: requests})
	cluster := resource(p.t, connections, upstream.Inbound(p.upstreams[p.port], waypointID, headers))
	if isHTTP {
		table.Protocol = model.ProtocolHTTP
		table.Default = pointers([]model.Rule{rule(below("/"), nil, to(p.port, 1))})
		gone.Name = connections
		cluster = resource(p.t, requests, upstream.ServicePort(p.upstreams[p.port], waypointID, headers))
	}
	p.ports = []model.ServedPort{{ServicePort: p.port, Protocol: table.Protocol}}
	updates := []xds.Update{
		p.tcpGuards(), p.listener(), p.tableOf(table), resource(p.t, requests, route.Scope(table.Attachment)),
		cluster,
	}
	p.apply(append(updates, gone)...)
	p.acknowledged(updates...)
	p.gone(gone.Name)
}

// TestPortsThatTurn: a port that turns from TCP to HTTP or back has the cluster that it needs before anything leads
// there. Who has a connection from before is served on, and who connects meanwhile gets no error for an answer.
func TestPortsThatTurn(t *testing.T) {
	p := turning{newWorld(t), web}
	in, _ := p.pod(appID, &echo{Name: "web"})
	p.upstreams[web] = model.Upstream{ServicePort: web, Protocol: model.ProtocolTCP, Identities: []string{appID}}
	p.apply(p.claOf(web, []model.Endpoint{in}))
	p.turn(false)
	name := names.ServerName(web.Namespace, web.Service, web.Port)
	caller := p.caller(clientID)

	var answered, failed atomic.Int64
	done := make(chan struct{})
	var clients sync.WaitGroup
	for range 4 {
		clients.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				c, err := caller.dial(t.Context(), name)
				if err != nil {
					continue
				}
				// One whose handshake began before the port turned may find that its way is gone, and ends without an answer.
				switch err := asked(c, bufio.NewReader(c)); {
				case err == nil:
					answered.Add(1)
				case errors.Is(err, errStatus):
					failed.Add(1)
				}
				_ = c.Close()
			}
		})
	}
	var kept []net.Conn
	var answers []*bufio.Reader
	for _, isHTTP := range []bool{true, false, true, false} {
		c, err := caller.dial(t.Context(), name) // of the kind that the port is until then
		if err != nil {
			t.Fatal(err)
		}
		kept, answers = append(kept, c), append(answers, bufio.NewReader(c))
		if err := asked(c, answers[len(answers)-1]); err != nil {
			t.Fatal(err)
		}
		p.turn(isHTTP)
		for n, c := range kept {
			if err := asked(c, answers[n]); err != nil {
				t.Errorf("a connection from %d turns before: %v", len(kept)-n, err)
			}
		}
	}
	close(done)
	clients.Wait()
	if failed.Load() > 0 || answered.Load() == 0 {
		t.Errorf("%d new connections were served, and %d answered with an error", answered.Load(), failed.Load())
	}
}

var errStatus = errors.New("answered with an error")

// asked asks once on a connection, and leaves it open.
func asked(c net.Conn, in *bufio.Reader) error {
	_ = c.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(c, "GET / HTTP/1.1\r\nHost: web\r\n\r\n"); err != nil {
		return err
	}
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return err
	}
	if _, err := io.Copy(io.Discard, resp.Body); err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%w: %d", errStatus, resp.StatusCode)
	}
	return nil
}
