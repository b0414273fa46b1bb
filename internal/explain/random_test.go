// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
)

// TestExplainAtRandom: what is explained of a pod is what the reference of its proxy's tests says.
func TestExplainAtRandom(t *testing.T) {
	seed := rand.Uint64()
	r := rand.New(rand.NewPCG(seed, 0))
	identities, ports := []string{"", shop, other}, []uint16{80, 81, 82}
	some := func() []uint16 { return [][]uint16{nil, {80}, {80, 81}}[r.IntN(3)] }
	sources := [][]model.AccessSource{
		nil, {{Identity: shop}}, {{Identity: other}}, {{Identity: "spiffe://cluster.local/ns/shop/sa/", Prefix: true}},
	}
	for range 2000 {
		g := model.PodGuard{Guard: model.Guard{DefaultDeny: r.IntN(3) == 0}}
		for n := range r.IntN(4) {
			p := model.AccessPolicy{
				Name: types.NamespacedName{Namespace: "shop", Name: fmt.Sprint(n)}, Deny: r.IntN(2) == 0, DryRun: r.IntN(4) == 0,
				Ports: some(),
			}
			for n := range r.IntN(3) {
				rule := model.AccessRule{Index: n, Sources: sources[r.IntN(len(sources))], Ports: some()}
				if p.Ports != nil { // so ingest has it
					rule.Ports = p.Ports[:1]
				}
				p.Rules = append(p.Rules, rule)
			}
			g.Network = append(g.Network, p)
		}
		if r.IntN(2) == 0 {
			g.Only, g.Waypoints = []uint16{82}, []model.GuardedPort{{Port: ports[r.IntN(3)], Waypoint: other}}
		}
		for _, identity := range identities {
			for _, port := range ports {
				want := Denied
				if translatetest.LetIn(g, translatetest.Caller{Identity: identity, Port: port}, false) {
					want = Allowed
				}
				got := atPod(g, Caller{identity: identity, port: port})
				require.Equal(t, want, got.Verdict, "seed %d: %s at %d by %+v: %s", seed, identity, port, g, got.Reason)
			}
		}
	}
}
