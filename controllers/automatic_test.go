// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAutomaticWaypointLingers: only an uninterrupted time without need ends a waypoint.
func TestAutomaticWaypointLingers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := &automaticWaypointReconciler{linger: 30 * time.Second, idle: map[string]time.Time{}}
		require.Equal(t, 30*time.Second, r.lingers("shop"))
		time.Sleep(20 * time.Second)
		require.Equal(t, 10*time.Second, r.lingers("shop"))
		r.busy("shop") // the route came back
		require.Equal(t, 30*time.Second, r.lingers("shop"))
		time.Sleep(30 * time.Second)
		require.Zero(t, r.lingers("shop"))
		r.busy("shop")
		require.Empty(t, r.idle)
	})
}
