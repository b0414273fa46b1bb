// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package charge

import (
	"bufio"
	"os"
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

func TestOneAgentIsInCharge(t *testing.T) {
	dir := t.TempDir()
	a, b := New(dir, "a"), New(dir, "b")
	takes := func(c *Charge, want bool) {
		t.Helper()
		got, err := c.Take()
		require.NoError(t, err)
		require.Equal(t, want, got)
	}
	hears := func(c *Charge, want Word, wantTaken bool) {
		t.Helper()
		w, taken, err := c.Other()
		require.NoError(t, err)
		require.Equal(t, want, w)
		require.Equal(t, wantTaken, taken)
	}
	hears(a, Word{}, false)
	takes(a, true)
	takes(b, false)
	hears(a, Word{}, true)
	hears(b, Word{Agent: "a", State: Took}, true)
	require.NoError(t, a.Say(Serves))
	hears(b, Word{Agent: "a", State: Serves}, true)

	require.NoError(t, a.Give())
	require.NoError(t, a.Give(), "once is enough")
	hears(a, Word{}, false)
	takes(b, true)
	hears(a, Word{Agent: "b", State: Took}, true)
	require.NoError(t, b.Say(Left))
	require.NoError(t, b.Give())
	hears(a, Word{Agent: "b", State: Left}, false)
}

// holder is the environment variable that makes this test be an agent.
const holder = "FAIRWAY_TEST_HOLDS"

func TestItEndsWithItsProcess(t *testing.T) {
	if dir := os.Getenv(holder); dir != "" {
		took, err := New(dir, "held").Take()
		require.NoError(t, err)
		require.True(t, took)
		_, _ = os.Stdout.WriteString("\n")
		select {}
	}
	dir := t.TempDir()
	cmd := exec.Command(os.Args[0], "-test.run=^TestItEndsWithItsProcess$")
	cmd.Env = append(os.Environ(), holder+"="+dir)
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	_, err = bufio.NewReader(out).ReadString('\n')
	require.NoError(t, err)

	c := New(dir, "next")
	took, err := c.Take()
	require.NoError(t, err)
	require.False(t, took)
	require.NoError(t, cmd.Process.Kill())
	_ = cmd.Wait()
	eventually.True(t, "the lock is free", func() bool {
		took, err := c.Take()
		return err == nil && took
	})
}
