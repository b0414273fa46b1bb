// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"net/http"
	"testing"
	"time"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestBalancing: what a TrafficPolicy hashes by stays with one endpoint, over connections, and different values are
// spread.
func TestBalancing(t *testing.T) {
	w := newWorld(t)
	const clients, tries, replicas = 16, 4, 4
	var endpoints []model.Endpoint
	for n := range replicas {
		e, _ := w.pod(appID, &echo{Name: fmt.Sprint("v", n)})
		endpoints = append(endpoints, e)
	}
	dialled := ""
	for _, tc := range []struct {
		name   string
		by     model.Balancing
		header string // of a client
		value  string
		stays  bool
	}{
		{"ring by header", model.Balancing{Type: model.BalanceRingHash, Header: "X-User"}, "X-User", "%d", true},
		{"maglev by header", model.Balancing{Type: model.BalanceMaglev, Header: "X-User"}, "X-User", "%d", true},
		{"ring by cookie", model.Balancing{Type: model.BalanceRingHash, Cookie: "user"}, "Cookie", "user=%d", true},
		{"round robin", model.Balancing{Type: model.BalanceRoundRobin}, "X-User", "%d", false},
		{"random", model.Balancing{Type: model.BalanceRandom}, "X-User", "%d", false},
		{"least requests", model.Balancing{Type: model.BalanceLeastRequest}, "X-User", "%d", false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			w.upstream(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, Sending: model.Sending{
				Balancing: &tc.by,
			}}, endpoints...)
			if dialled == "" {
				dialled = w.serve(web, true, nil)
			}
			used, moved := map[string]int{}, 0
			for client := range clients {
				first := ""
				for range tries {
					c := w.caller(clientID).client(t, dialled, nil)
					name := do(t, c, http.MethodGet, "http://web/", tc.header, fmt.Sprintf(tc.value, client)).Name
					if used[name]++; first != "" && name != first {
						moved++
					}
					first = name
				}
			}
			if (moved == 0) != tc.stays || len(used) < 2 {
				t.Errorf("%d of %d requests moved: %v", moved, clients*(tries-1), used)
			}
		})
	}
	t.Run("a cookie of the waypoint's", func(t *testing.T) {
		w.upstream(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, Sending: model.Sending{
			Balancing: &model.Balancing{Type: model.BalanceMaglev, Cookie: "fairway", CookieTTL: new(time.Hour)},
		}}, endpoints...)
		used := map[string]int{}
		for range clients {
			c := w.caller(clientID)
			r := do(t, c.client(t, dialled, nil), http.MethodGet, "http://web/")
			cookies := (&http.Response{Header: r.header}).Cookies()
			if len(cookies) != 1 || cookies[0].MaxAge != 3600 {
				t.Fatalf("cookies: %v", cookies)
			}
			for range tries {
				name := do(t, c.client(t, dialled, nil), http.MethodGet, "http://web/",
					"Cookie", cookies[0].Name+"="+cookies[0].Value).Name
				if name != r.Name {
					t.Errorf("moved from %s to %s", r.Name, name)
				}
			}
			used[r.Name]++
		}
		if len(used) < 2 {
			t.Errorf("clients are not spread: %v", used)
		}
	})
}
