// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// BenchmarkGuards tells what a request costs the proxy, in microseconds of CPU: without the filters that decide, with
// them and without policies, and with ten. In turn, for the machine is not always as fast.
func BenchmarkGuards(b *testing.B) {
	s := &shop{world: newWorld(b)}
	in, _ := s.pod(appID, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	s.backend(web, model.ProtocolHTTP, in)
	dialled := s.serve(web, true, nil)
	client := s.caller(clientID).client(b, dialled, nil)
	set := func(u xds.Update) {
		s.apply(u)
		s.acknowledged(u)
	}
	table := func(guards []model.Guard) xds.Update {
		return s.tableOf(model.RouteTable{
			Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP, Guards: guards,
		})
	}
	var ten []model.AccessPolicy
	for n := range 10 {
		r := model.AccessRule{Request: pathIs(model.MatchPrefix, fmt.Sprint("/part-", n))}
		for account := range 5 {
			id := names.SPIFFEID(trustDomain, "front", fmt.Sprint("a", account))
			r.Sources = append(r.Sources, model.AccessSource{Identity: id})
		}
		if n == 9 {
			r = fromAccount(clientID, pathIs(model.MatchPrefix, "/shop"))
		}
		ten = append(ten, accessPolicy(fmt.Sprint("p", n), n < 3, r))
	}
	cases := []struct {
		name    string
		filters bool
		guards  []model.Guard
	}{{"without", false, nil}, {"no_policy", true, nil}, {"ten_policies", true, onRequests(ten...)}}
	const requests = 2000
	cost := map[string][]float64{}
	for range b.N {
		for _, c := range cases {
			set(s.clusterOf(web, c.filters))
			set(table(c.guards))
			before := s.cpu()
			for range requests {
				resp, err := client.Get("http://web/shop/cart")
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				if resp.StatusCode != http.StatusOK {
					b.Fatal(c.name, resp.Status)
				}
			}
			cost[c.name] = append(cost[c.name], float64((s.cpu()-before).Microseconds())/requests)
		}
	}
	for name, all := range cost {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name+"-µs/request")
		b.Logf("%s: %.0f to %.0f", name, all[0], all[len(all)-1])
	}
}

// clusterOf a port, with the filters that decide or as it would be without.
func (w *world) clusterOf(p model.ServicePort, filters bool) xds.Update {
	c := upstream.ServicePort(w.upstreams[p], waypointID, headers)
	if !filters {
		for name, packed := range c.GetTypedExtensionProtocolOptions() {
			o := &upstreamhttpv3.HttpProtocolOptions{}
			if err := packed.UnmarshalTo(o); err != nil {
				w.t.Fatal(err)
			}
			o.HttpFilters = nil
			c.TypedExtensionProtocolOptions[name] = envoy.Any(o)
		}
	}
	return resource(w.t, c.GetName(), c)
}

// cpu is what Envoy has used.
func (w *world) cpu() time.Duration {
	w.t.Helper()
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", w.pid))
	if err != nil {
		w.t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(stat), ") ")
	var ticks int
	for _, f := range strings.Fields(after)[11:13] { // utime, stime
		n, err := strconv.Atoi(f)
		if err != nil {
			w.t.Fatal(err)
		}
		ticks += n
	}
	return time.Duration(ticks) * 10 * time.Millisecond
}
