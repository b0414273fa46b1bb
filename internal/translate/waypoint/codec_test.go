// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package waypoint

import (
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/model"
)

// TestRequestsOfAConnection: what the headers of one connection may take is bounded, and no client is left with less
// requests than all expect to have.
func TestRequestsOfAConnection(t *testing.T) {
	for kib, want := range map[uint32]uint32{64: 1024, 128: 1024, 256: 512, 1024: 128, 2048: 100, 8192: 100} {
		require.Equal(t, want, mostStreams(model.HeaderLimits{KiB: kib}).GetValue(), "with %d KiB each", kib)
	}
}
