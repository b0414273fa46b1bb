// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/printable"
)

// evil has what terminals take for orders, and what looks like a line of the command's own.
const evil = "v1\x1b]52;c;aGk=\x07\x1b[2J\u009b31m\u202e\nAll is well.\r\x00\xff\tx"

// harmless tells that nothing of it is left, but line breaks of the program's own.
func harmless(t *testing.T, out string) {
	t.Helper()
	for _, r := range strings.ReplaceAll(out, "\n", "") {
		require.False(t, printable.Hidden(r), "%q in %q", r, out)
	}
	for line := range strings.Lines(out) {
		require.False(t, strings.HasPrefix(line, "All is well."), "a line that nobody has said")
	}
}

// Whatever way a text comes into a table, it is harmless in it.
func TestTablesAreHarmless(t *testing.T) {
	var out bytes.Buffer
	table := &table{out: &out}
	table.line("%s %v %s %d", evil, errors.New(evil), types.NamespacedName{Namespace: evil, Name: evil}, 3)
	table.rows([]string{"A", "B"}, [][]string{{evil, "x"}, {"y", evil}})
	table.fields([][]string{{"what", evil}})
	require.NoError(t, table.err)
	harmless(t, out.String())
	require.Equal(t, 5, strings.Count(out.String(), "\n"), "a line each")

	out.Reset()
	require.NoError(t, (&outputFlag{"json"}).print(&out, map[string]string{evil: evil + "\U000e0001"}, nil))
	harmless(t, out.String())
	var back map[string]string
	require.NoError(t, json.Unmarshal(out.Bytes(), &back))
	for _, v := range back {
		require.Equal(t, strings.ToValidUTF8(evil, "\ufffd")+"\U000e0001", v, "programs read what was said")
	}
}

func TestErrorsAreHarmless(t *testing.T) {
	text := Printable(fmt.Errorf("pod shop/x: %w", errors.Join(errors.New(evil), errors.New("second"))))
	harmless(t, text)
	require.Contains(t, text, "\n  second")
}

func TestNotesAreHarmless(t *testing.T) {
	var out bytes.Buffer
	(&waiter{out: &out}).say(evil)
	(&remover{notes: &out}).say("%s", evil)
	(&bugReport{notes: &out}).say("%s", evil)
	(&bugReport{notes: &out}).lack(evil, evil)
	harmless(t, out.String())
	require.Equal(t, 4, strings.Count(out.String(), "\n"), "a line each")
}

// A pod's version is whatever it answers.
func TestVersionsOfAnEvilPod(t *testing.T) {
	answer := saysVersion(t, introspect.Version{Version: evil, Commit: evil, Envoy: evil + "/" + evil})
	_, out := shownVersions(t, fakeCluster(t, fakePods{introspect.PathVersion: answer}, versioned("v0.1.0")...))
	harmless(t, string(out))
	require.Contains(t, string(out), `\x1b[2J`)
}
