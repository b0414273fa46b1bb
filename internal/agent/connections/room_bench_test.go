// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"fmt"
	"net/netip"
	"testing"

	"github.com/go-logr/logr"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

// BenchmarkRoomWhenFull is what a connection costs that comes when all room is taken: to a pod that has less than
// others have, each time another one.
func BenchmarkRoomWhenFull(b *testing.B) {
	for _, of := range []struct{ namespaces, pods int }{{1, 250}, {25, 10}, {250, 1}, {1, 1000}, {1000, 1}} {
		b.Run(fmt.Sprintf("namespaces=%d/pods=%d", of.namespaces, of.pods), func(b *testing.B) {
			k := New(logr.Discard())
			var names []string
			for ns := range of.namespaces {
				for pod := range of.pods {
					names = append(names, fmt.Sprintf("namespace-%d/pod-%d", ns, pod))
				}
			}
			n := 0
			come := func(name string) {
				n++
				address := netip.AddrFrom4([4]byte{10, byte(n >> 24), byte(n >> 16), byte(n >> 8)})
				o := opened{Proxied: capture.Proxied{Caller: capture.Leg{Remote: netip.AddrPortFrom(address, uint16(n&0xff))}}}
				if p := k.pod(name); k.makeRoom(name) {
					p.open[o.key()] = o
					k.room.took(name)
				}
			}
			for at := 0; k.room.open < k.inAll; at++ {
				come(names[at%len(names)])
			}
			b.ReportAllocs()
			for at := 0; b.Loop(); at++ {
				come(fmt.Sprintf("namespace-new-%d/pod", at%of.namespaces))
			}
		})
	}
}
