// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// BenchmarkRateLimitServices tells what a request with 20 headers costs the proxy, in microseconds of CPU: without a
// rate limit service, with one, and with what watches over it. In turn, for the machine is not always as fast.
func BenchmarkRateLimitServices(b *testing.B) {
	w := newWorld(b)
	in, _ := w.pod(appID, http.HandlerFunc(func(http.ResponseWriter, *http.Request) {}))
	w.backend(web, model.ProtocolHTTP, in)
	client := w.caller(clientID).client(b, w.serve(web, true, nil), nil)
	limit := w.limiter(1 << 30)
	limit.Reserved = []string{"authorization", "x-user"}
	cases := []struct {
		name           string
		asked, watched bool
	}{{"without", false, false}, {"asked", true, false}, {"watched", true, true}}
	table := func(asked, watched bool) {
		t := model.RouteTable{Attachment: model.Attachment{Port: web}, Protocol: model.ProtocolHTTP}
		if asked {
			t.Requests.GlobalLimit = &limit
		}
		rc, _ := route.Configuration(trustDomain, t)
		if !watched {
			delete(rc.GetVirtualHosts()[0].GetTypedPerFilterConfig(), "fairway.before_limits")
			delete(rc.GetVirtualHosts()[0].GetTypedPerFilterConfig(), "fairway.behind_limits")
		}
		u := resource(b, rc.GetName(), rc)
		w.apply(u)
		w.acknowledged(u)
	}
	const requests = 2000
	cost := map[string][]float64{}
	for range b.N {
		for _, c := range cases {
			table(c.asked, c.watched)
			before := w.cpu()
			for range requests {
				q, err := http.NewRequestWithContext(b.Context(), http.MethodGet, "http://web/", nil)
				require.NoError(b, err)
				for n := range 16 {
					q.Header.Set(fmt.Sprint("X-Some-Header-", n), strings.Repeat("x", 40))
				}
				resp, err := client.Do(q)
				require.NoError(b, err)
				_, _ = io.Copy(io.Discard, resp.Body)
				_ = resp.Body.Close()
				require.Equal(b, http.StatusOK, resp.StatusCode)
			}
			cost[c.name] = append(cost[c.name], float64((w.cpu()-before).Microseconds())/requests)
		}
	}
	for name, all := range cost {
		slices.Sort(all)
		b.ReportMetric(all[len(all)/2], name+"-µs/request")
		b.Logf("%s: %.0f to %.0f", name, all[0], all[len(all)-1])
	}
}
