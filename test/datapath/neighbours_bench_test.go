// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"fmt"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// BenchmarkNeighbours measures what the proxy takes for connections between two pods of a node: through it twice with
// mTLS, from a pod that the node's agent doesn't know yet, and once. Rounds come in turn.
func BenchmarkNeighbours(b *testing.B) {
	m := newNeighbourMesh(b)
	n := m.nodes[0]
	server := n.newMember("server", false)
	server.echo(8080)
	server.workload(8080)
	at := server.at(8080)
	callers := map[string]*pod{"two passes": n.newMember("unknown", false), "one pass": n.newMember("client", false)}
	n.near.Load().Released(b.Context(), callers["two passes"].spec(false).UID)
	way{callers["one pass"], server, at}.isNear(b)
	each := func(name string, run func(b *testing.B, from *pod)) {
		for round := range rounds {
			for _, way := range []string{"two passes", "one pass"} {
				b.Run(fmt.Sprintf("%s/%s/%d", name, way, round), func(b *testing.B) {
					before := n.proxy.cpu()
					run(b, callers[way])
					used := n.proxy.cpu() - before
					b.ReportMetric(float64(used.Microseconds())/float64(b.N), "proxy-µs/op")
				})
			}
		}
	}
	each("a new connection", func(b *testing.B, from *pod) { connect(b, from, at) })
	for _, open := range []int{1, 64} {
		each(fmt.Sprintf("a request on one of %d", open), func(b *testing.B, from *pod) {
			var all sync.WaitGroup
			for n := range open {
				c, err := from.dial(at.String())
				require.NoError(b, err)
				all.Go(func() {
					defer c.Close()
					buf := make([]byte, 1024)
					for i := n; i < b.N; i += open {
						if err := exchange(c, buf); err != nil {
							b.Error(err)
							return
						}
					}
				})
			}
			all.Wait()
		})
	}
	each("a gigabit", func(b *testing.B, from *pod) { // half of it each way
		c, err := from.dial(at.String())
		require.NoError(b, err)
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(time.Minute))
		half := int64(b.N) * 1e9 / 8 / 2
		go func() { _, _ = io.CopyN(c, zeros{}, half) }()
		_, err = io.CopyN(io.Discard, c, half)
		require.NoError(b, err)
	})
}

// zeros never end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) { return len(p), nil }
