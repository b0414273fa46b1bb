// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/names"
)

func TestExitCodes(t *testing.T) {
	for _, c := range []struct {
		args []string
		code int
		says string
	}{
		{[]string{"--no-such-flag"}, exitUsage, "unknown flag"},
		{[]string{"extra"}, exitUsage, "unknown command"},
		{[]string{"-o", "xml"}, exitUsage, "unknown format, use table, json or yaml"},
		{[]string{"--kubeconfig", "/does/not/exist"}, exitUnhealthy, "no cluster to talk to"},
	} {
		cmd := statusCommand()
		cmd.SilenceErrors, cmd.SilenceUsage = true, true
		cmd.SetFlagErrorFunc(commands()[0].FlagErrorFunc())
		cmd.SetArgs(c.args)
		err := cmd.ExecuteContext(t.Context())
		assert.ErrorContains(t, err, c.says)
		code := exitUnhealthy
		if e := (exitError{}); errors.As(err, &e) {
			code = e.ExitCode()
		}
		assert.Equal(t, c.code, code, "%v", c.args)
	}
	assert.Equal(t, exitUnhealthy, errUnhealthy.ExitCode())
	assert.Empty(t, errUnhealthy.Error())
}

func TestTheRootCommandsExitCodes(t *testing.T) {
	root := func(args ...string) error {
		cmd := Root(&cobra.Command{Use: "fairway"})
		cmd.SetOut(io.Discard)
		cmd.SetArgs(append([]string{}, args...)) // without any, not those of the test
		return cmd.ExecuteContext(t.Context())
	}
	for _, given := range [][]string{{"bogus"}, {"--bogus"}, {"proxy", "bogus"}, {"proxy", "clusters", "--bogus", "x"}} {
		err := root(given...)
		var coded exitError
		require.ErrorAs(t, err, &coded, "%v", given)
		require.Equal(t, exitUsage, coded.ExitCode(), "%v", given)
		require.ErrorContains(t, err, "bogus")
	}
	require.NoError(t, root(), "help is what one gets without a command")
}

func TestVersionAndHelp(t *testing.T) {
	for _, cmd := range commands() {
		var out bytes.Buffer
		cmd.SetOut(&out)
		cmd.SetArgs([]string{"--help"})
		require.NoError(t, cmd.Execute(), cmd.Name())
		assert.Contains(t, out.String(), "Usage:")
	}
	var out bytes.Buffer
	cmd := versionCommand()
	cmd.SetOut(&out)
	cmd.SetArgs([]string{"--client", "-o", "json"})
	require.NoError(t, cmd.Execute())
	assert.Contains(t, out.String(), `"version": "`+names.Version+`"`)
}

// A mistake in the command line is said as what it is, before any cluster is asked.
func TestMistakes(t *testing.T) {
	for line, want := range map[string]string{
		"stauts":                              `there is no command "stauts": is it status?`,
		"wibble":                              `there is no command "wibble" (see fairway --help)`,
		"describe":                            "fairway describe: say what: KIND NAME",
		"describe pod -n Bad_NS x":            `-n: "Bad_NS" can't be the name of a namespace`,
		"describe pod Bad_NS/x":               `"Bad_NS" can't be the name of a namespace`,
		"status --timeout 0s":                 "want more than 0s",
		"uninstall --timeout=-1s":             "want more than 0s",
		"waypoint apply --timeout 0s":         "want more than 0s",
		"uninstall --system-namespace Bad_NS": "can't be the name of a namespace",
		"waypoint list -A -n shop":            "want one of them",
	} {
		_, _, err := does(t, strings.Fields(line)...)
		require.ErrorContains(t, err, want, line)
		var coded exitError
		require.ErrorAs(t, err, &coded, line)
		require.Equal(t, exitUsage, coded.code, line)
	}
}
