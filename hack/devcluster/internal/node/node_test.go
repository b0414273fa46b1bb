// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"slices"
	"testing"
)

func TestEnvironment(t *testing.T) {
	t.Setenv("https_proxy", "http://proxy.example")
	t.Setenv("KEPT", "yes")
	t.Setenv("PATH", "/old")
	got := environment("PATH=/new")
	if !slices.Contains(got, "KEPT=yes") || !slices.Contains(got, "PATH=/new") || slices.Contains(got, "PATH=/old") ||
		slices.Contains(got, "https_proxy=http://proxy.example") {
		t.Errorf("got %v", got)
	}
}
