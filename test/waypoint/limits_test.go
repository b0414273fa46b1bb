// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
)

// sends has the waypoint send to the port of Service web as a TrafficPolicy says.
func (w *world) sends(s model.Sending, endpoints ...model.Endpoint) {
	w.t.Helper()
	w.upstream(model.Upstream{ServicePort: web, Protocol: model.ProtocolHTTP, Sending: s}, endpoints...)
}

// held answers once it is let.
type held chan struct{}

func (h held) ServeHTTP(_ http.ResponseWriter, r *http.Request) {
	select {
	case <-h:
	case <-r.Context().Done():
	}
}

// TestCircuitBreaking: what is beyond the bounds of a TrafficPolicy is refused at once, and nothing else.
func TestCircuitBreaking(t *testing.T) {
	w := newWorld(t)
	let := make(held)
	e, _ := w.pod(appID, let)
	one := new(uint32(1))
	dialled := ""
	for name, limits := range map[string]model.SendingLimits{
		"requests":    {Requests: one},
		"connections": {Connections: one, Pending: one},
	} {
		t.Run(name, func(t *testing.T) {
			w.sends(model.Sending{Limits: limits}, e)
			if dialled == "" {
				dialled = w.serve(web, true, nil)
			}
			c := w.caller(clientID).client(t, dialled, nil)
			const requests, refused = 10, 5
			answers := make(chan int, requests)
			get := func() {
				resp, err := c.Get("http://web/")
				if err != nil {
					answers <- 0
					return
				}
				_ = resp.Body.Close()
				answers <- resp.StatusCode
			}
			go get() // all workers of Envoy know the bounds when it is answered
			let <- struct{}{}
			require.Equal(t, http.StatusOK, <-answers)
			for range requests {
				go get()
			}
			got := map[int]int{}
			// One passes. Where connections are bounded, each of Envoy's two workers has one all the same, and others may wait.
			for range refused {
				got[<-answers]++
			}
			require.Equal(t, map[int]int{http.StatusServiceUnavailable: refused}, got)
			for left := requests - refused; left > 0; {
				select {
				case let <- struct{}{}:
				case status := <-answers:
					left--
					got[status]++
				}
			}
			require.Positive(t, got[http.StatusOK])
			require.Equal(t, requests, got[http.StatusOK]+got[http.StatusServiceUnavailable], got)
		})
	}
}

// TestOutlierDetection: an endpoint that fails gets nothing more, and comes back.
func TestOutlierDetection(t *testing.T) {
	w := newWorld(t)
	var good echo
	mended := make(chan struct{})
	healthy, _ := w.pod(appID, &good)
	failing, _ := w.pod(appID, http.HandlerFunc(func(out http.ResponseWriter, r *http.Request) {
		select {
		case <-mended:
			(&echo{Name: "mended"}).ServeHTTP(out, r)
		default:
			out.WriteHeader(http.StatusInternalServerError)
		}
	}))
	w.sends(model.Sending{
		Balancing: &model.Balancing{Type: model.BalanceRoundRobin},
		Outliers: &model.Outliers{
			Consecutive5xx: 2, MaxPercent: 50, Interval: 100 * time.Millisecond, EjectionTime: time.Second,
		},
	}, healthy, failing)
	c := w.caller(clientID).client(t, w.serve(web, true, nil), nil)
	get := func() reply { return do(t, c, http.MethodGet, "http://web/") }
	eventually.True(t, "the endpoint fails no more", func() bool {
		for range 6 {
			if get().status != http.StatusOK {
				return false
			}
		}
		return true
	})
	close(mended)
	eventually.True(t, "the endpoint is back", func() bool { return get().Name == "mended" })
}
