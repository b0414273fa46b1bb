// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package proxymark

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestEachNodeHasItsMark(t *testing.T) {
	seen := map[Mark]bool{}
	for range 8 {
		path := filepath.Join(t.TempDir(), "mark")
		_, err := Load(path)
		require.ErrorIs(t, err, fs.ErrNotExist)
		m, err := Ensure(path)
		require.NoError(t, err)
		require.False(t, m.IsZero())
		require.False(t, seen[m], "no two are equal")
		seen[m] = true

		info, err := os.Stat(path)
		require.NoError(t, err)
		require.Equal(t, fs.FileMode(0o600), info.Mode())
		again, err := Ensure(path)
		require.NoError(t, err)
		require.Equal(t, m, again, "it stays")
		read, err := Load(path)
		require.NoError(t, err)
		require.Equal(t, m, read)
		entries, err := os.ReadDir(filepath.Dir(path))
		require.NoError(t, err)
		require.Len(t, entries, 1)
	}
}

func TestWhatHoldsNoMark(t *testing.T) {
	for _, text := range []string{
		"", "\n", "hello", "00000000 00000000\n", "00000539 00000000\n", "40000001\n",
		"ffffffff ffffffff\n",
	} {
		path := filepath.Join(t.TempDir(), "mark")
		require.NoError(t, os.WriteFile(path, []byte(text), 0o600))
		_, err := Ensure(path)
		require.ErrorContains(t, err, "delete it", "%q", text)
	}
}

func TestLogsDoNotShowIt(t *testing.T) {
	m := From(0x12345678, 0x12345678)
	for _, f := range []string{"%v", "%+v", "%#v", "%s"} {
		require.Equal(t, "(secret)", fmt.Sprintf(f, m))
	}
}
