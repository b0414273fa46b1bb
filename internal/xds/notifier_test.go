// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package xds

import (
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/require"
)

// TestWhatIsAddedTogetherIsHandedOverTogether: once each, in order, in calls of bounded length.
func TestWhatIsAddedTogetherIsHandedOverTogether(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls [][]int
		n := newNotifier(func(keys ...int) { calls = append(calls, append([]int{}, keys...)) })
		n.add()
		synctest.Wait()
		require.Empty(t, calls)
		n.add(1, 2, 1)
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2}}, calls)
		many := make([]int, handOver+1)
		for i := range many {
			many[i] = i
		}
		n.add(many...)
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2}, many[:handOver], many[handOver:]}, calls)
	})
}

// TestWhatChangesWhileItIsHandedOverIsHandedOverAgain: the call may have read the older state.
func TestWhatChangesWhileItIsHandedOverIsHandedOverAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var calls [][]int
		var n *notifier[int]
		n = newNotifier(func(keys ...int) {
			if calls = append(calls, append([]int{}, keys...)); len(calls) == 1 {
				n.add(2, 3)
			}
		})
		n.add(1, 2)
		synctest.Wait()
		require.Equal(t, [][]int{{1, 2}, {2, 3}}, calls)
	})
}
