// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestClientIPAffinity: a client address stays with one endpoint, over connections and whatever it says about itself,
// and different ones are spread.
func TestClientIPAffinity(t *testing.T) {
	w := newWorld(t)
	const clients, tries, replicas = 24, 6, 4
	raw := model.ServicePort{Namespace: "shop", Service: "raw", Port: 5432}
	var http1, tcp []model.Endpoint
	for n := range replicas {
		name := fmt.Sprint("v", n)
		e, _ := w.pod(appID, &echo{Name: name})
		http1 = append(http1, e)
		tcp = append(tcp, model.Endpoint{
			Address: w.listen(func(c *net.TCPConn) { _, _ = io.WriteString(c, name); _ = c.CloseWrite() }),
		})
	}
	w.upstream(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, ClientIP: true}, http1...)
	w.upstream(model.Upstream{ServicePort: raw, Protocol: model.ProtocolTCP, ClientIP: true}, tcp...)
	dialledHTTP, dialledTCP := w.serve(web, true, nil), w.serve(raw, false, nil)

	ctx, cancel := context.WithTimeout(t.Context(), patience) // of every connection
	defer cancel()
	overHTTP, overTCP := map[string]int{}, map[string]int{}
	for range clients {
		c := w.caller(clientID)
		var first, firstTCP string
		for try := range tries {
			client := c.client(t, dialledHTTP, nil) // a connection of its own
			name := do(t, client, http.MethodGet, "http://web/", "X-Forwarded-For", fmt.Sprintf("192.0.2.%d", try)).Name
			if first == "" {
				first = name
				overHTTP[name]++
			}
			conn, err := c.dial(ctx, dialledTCP)
			if err != nil {
				t.Fatal(err)
			}
			b, err := io.ReadAll(conn)
			_ = conn.Close()
			if err != nil {
				t.Fatal(err)
			}
			if firstTCP == "" {
				firstTCP = string(b)
				overTCP[firstTCP]++
			}
			if name != first || string(b) != firstTCP {
				t.Errorf("client %s moved from %s to %s, or from %s to %s", c.address, first, name, firstTCP, b)
			}
		}
	}
	if len(overHTTP) < 2 || len(overTCP) < 2 {
		t.Errorf("%d clients are not spread: %v %v", clients, overHTTP, overTCP)
	}
}
