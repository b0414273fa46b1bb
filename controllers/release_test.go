// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package controllers

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestReleasingIsBounded: node proxies stay until no pod is captured and a moment longer, but never beyond the timeout.
func TestReleasingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		captured := 3
		r := &meshReconciler{options: Options{
			releaseTimeout: 45 * time.Second, ReleaseGrace: 5 * time.Second,
			NodeReports: func() []NodeReport { return []NodeReport{{Node: "a", Captured: captured}} },
		}}
		r.going.began = time.Now()
		require.Equal(t, 45*time.Second, r.releasing())
		time.Sleep(10 * time.Second)
		captured = 0
		require.Equal(t, 5*time.Second, r.releasing())
		time.Sleep(2 * time.Second)
		require.Equal(t, 3*time.Second, r.releasing())
		captured = 1 // a pod that started meanwhile
		require.Equal(t, 33*time.Second, r.releasing())
		time.Sleep(33 * time.Second)
		require.Zero(t, r.releasing(), "an agent that does not answer is not waited for")
	})
}
