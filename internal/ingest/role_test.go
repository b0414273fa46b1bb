// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package ingest

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestRolesThatDifferMoved holds moved against what is picked for every port of two random versions of a waypoint, of
// which either may not be there.
func TestRolesThatDifferMoved(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var ports []model.ServicePort
	for _, namespace := range []string{"a", "shop"} {
		for n := range 6 {
			ports = append(ports, model.ServicePort{Namespace: namespace, Service: fmt.Sprint("s", n), Port: 80})
		}
	}
	random := func() *model.Waypoint {
		if r.IntN(8) == 0 {
			return nil
		}
		w := &model.Waypoint{Identity: fmt.Sprint("id", r.IntN(8)/7)}
		w.Name.Namespace = "shop"
		for _, p := range ports {
			switch r.IntN(4) {
			case 0:
				w.Backends = append(w.Backends, p)
				if p.Namespace != "shop" && r.IntN(2) == 0 {
					w.Consumed = append(w.Consumed, p)
				}
			case 1:
				protocol := []model.Protocol{model.ProtocolTCP, model.ProtocolHTTP}[r.IntN(2)]
				w.Ports = append(w.Ports, model.ServedPort{ServicePort: p, Protocol: protocol})
			}
		}
		return w
	}
	for range 2000 {
		before, now := random(), random()
		differ := moved(before, now)
		for _, p := range ports {
			if roleIn(before, p) != roleIn(now, p) {
				require.True(t, slices.Contains(differ, p), "%v: %v, %v", p, before, now)
			}
		}
		if now != nil {
			again := *now
			require.Empty(t, moved(now, &again))
		}
	}
}
