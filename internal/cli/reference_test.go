// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/stretchr/testify/require"
)

const referenceHead = `# Commands

What each command says of itself with ` + "`--help`" + `. How they are used is in [troubleshooting](../troubleshooting.md); ` +
	"`make install-cli`" + ` installs them.
`

// TestReference: the page of commands has what they say of themselves.
func TestReference(t *testing.T) {
	root := Root(&cobra.Command{Use: "fairway"})
	root.CompletionOptions.DisableDefaultCmd = true
	var page strings.Builder
	page.WriteString(referenceHead)
	var add func(*cobra.Command)
	add = func(cmd *cobra.Command) {
		if cmd.HasParent() {
			var help bytes.Buffer
			cmd.SetOut(&help)
			require.NoError(t, cmd.Help())
			fmt.Fprintf(&page, "\n## %s\n\n```text\n%s```\n", cmd.CommandPath(), help.String())
		}
		for _, sub := range cmd.Commands() {
			if sub.IsAvailableCommand() {
				add(sub)
			}
		}
	}
	add(root)
	file := filepath.Join("..", "..", "docs", "reference", "cli.md")
	if *update {
		require.NoError(t, os.WriteFile(file, []byte(page.String()), 0o644))
	}
	have, err := os.ReadFile(file)
	require.NoError(t, err)
	require.Equal(t, string(have), page.String(),
		"docs/reference/cli.md is not current: go test ./internal/cli -run TestReference -args -update")
}
