// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package printable

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestLine(t *testing.T) {
	const evil = "v1\x1b]52;c;aGk=\x07\x1b[2J\u009b31m\u202e\nAll is well.\r\x00\xff\tx"
	require.Equal(t, `v1\x1b]52;c;aGk=\a\x1b[2J\u009b31m\u202e\nAll is well.\r\x00\xff\tx`, Line(evil))
	require.Equal(t, Line(evil), Line(Line(evil)))
	require.Equal(t, "a\n\\x1bb\n", Lines("a\n\x1bb\n"))
	for _, kept := range []string{"", "plain", "ärger 漢字 “quoted” \\ ' é", strings.Repeat("x", 1000)} {
		require.Equal(t, kept, Line(kept))
		require.Equal(t, kept, Lines(kept))
	}
}
