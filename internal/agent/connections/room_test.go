// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestRoomKnowsWhoHasMost, whoever takes and gives, and knows nobody any more who has given all.
func TestRoomKnowsWhoHasMost(t *testing.T) {
	for seed := range uint64(20) {
		r := rand.New(rand.NewPCG(seed, 1))
		room, has := newRoom(), map[string]int{}
		look := func() {
			t.Helper()
			sum, namespaces, most, fullest := 0, map[string]int{}, 0, map[string]int{}
			for pod, n := range has {
				ns := namespaceOf(pod)
				sum += n
				namespaces[ns] += n
				most, fullest[ns] = max(most, namespaces[ns]), max(fullest[ns], n)
			}
			require.Equal(t, sum, room.open)
			require.Equal(t, namespaces, room.namespaces.of)
			name, n := room.namespaces.first()
			require.Equal(t, most, n)
			require.Equal(t, most, namespaces[name])
			require.Len(t, room.pods, len(fullest))
			for ns, most := range fullest {
				pod, n := room.pods[ns].first()
				require.Equal(t, [2]int{most, most}, [2]int{n, has[pod]})
			}
		}
		for range 500 {
			pod := fmt.Sprintf("%d/%d", r.IntN(3), r.IntN(3))
			if has[pod] > 0 && r.IntN(2) == 0 {
				room.gave(pod)
				if has[pod]--; has[pod] == 0 {
					delete(has, pod)
				}
			} else {
				room.took(pod)
				has[pod]++
			}
			look()
		}
		for pod, n := range has {
			for range n {
				room.gave(pod)
			}
		}
		require.Empty(t, room.pods)
		require.Empty(t, room.namespaces.of)
		require.Empty(t, room.namespaces.with)
	}
}
