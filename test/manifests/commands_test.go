// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package manifests

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/cli"
	"github.com/fairway-mesh/fairway/internal/command"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

// TestCommandsOfDocumentsExist looks up what documents tell people to type: targets and variables of make, commands
// and flags of fairway and kubectl.
func TestCommandsOfDocumentsExist(t *testing.T) {
	targets, kubectl, checked := readMakefile(t), &kubectlHelp{pages: map[string]string{}}, map[string]int{}
	for _, p := range pages(t) {
		for _, words := range p.commands() {
			var err error
			name, args := filepath.Base(words[0]), words[1:]
			if name == "kubectl" && len(args) > 0 && args[0] == "fairway" {
				name, args = "fairway", args[1:]
			}
			switch name {
			case "make":
				err = targets.check(args)
			case "fairway":
				err = checkFairway(args)
			case "kubectl":
				err = kubectl.check(t, args)
			default:
				continue
			}
			checked[name]++
			assert.NoError(t, err, "%s: %s", p.file, strings.Join(words, " "))
		}
	}
	for _, name := range []string{"make", "fairway", "kubectl"} {
		require.Greater(t, checked[name], 10, name)
	}
}

// TestWrongCommandsAreNoticed shows that the test above would notice.
func TestWrongCommandsAreNoticed(t *testing.T) {
	targets, kubectl := readMakefile(t), &kubectlHelp{pages: map[string]string{}}
	require.Error(t, targets.check([]string{"deploy", "meshes"}))
	require.Error(t, targets.check([]string{"deploy", "CHANNEL=experimental"}))
	require.Error(t, checkFairway([]string{"stat"}))
	require.Error(t, checkFairway([]string{"proxy", "listeners|filters", "POD"}))
	require.Error(t, checkFairway([]string{"status", "--yaml"}))
	require.Error(t, checkFairway([]string{"status", "-x", "yaml"}))
	require.Error(t, kubectl.check(t, []string{"list", "pods"}))
	require.Error(t, kubectl.check(t, []string{"get", "pods", "--namespaces=x"}))
	require.Error(t, kubectl.check(t, []string{"get", "pods", "-j"}))
}

// commands in the page: those behind a prompt, and those in its text.
func (p page) commands() [][]string {
	var out [][]string
	for _, b := range p.blocks {
		if b.language != "console" {
			continue
		}
		joined := strings.ReplaceAll(b.text, "\\\n", " ")
		for line := range strings.Lines(joined) {
			if c, ok := strings.CutPrefix(line, "$ "); ok {
				out = append(out, split(c)...)
			}
		}
	}
	for _, span := range p.spans {
		out = append(out, split(span)...)
	}
	return out
}

// split a line for a shell into its commands and those into words, without comments and what comes before the command.
func split(line string) [][]string {
	before := []string{"sudo", "env", "until"}
	word := regexp.MustCompile(`'[^']*'|"[^"]*"|[^\s'"]+`)
	words, out := []string{}, [][]string{}
	end := func() {
		for len(words) > 0 && (slices.Contains(before, words[0]) || strings.Contains(words[0], "=")) {
			words = words[1:]
		}
		if len(words) > 0 {
			out = append(out, words)
		}
		words = nil
	}
	for _, w := range word.FindAllString(line, -1) {
		if strings.HasPrefix(w, "#") {
			break
		}
		if slices.Contains([]string{"|", "||", "&&", ";", "--"}, w) {
			end()
			continue
		}
		words = append(words, w)
	}
	end()
	return out
}

// makefile is what can be given to make.
type makefile struct{ targets, variables map[string]bool }

func readMakefile(t *testing.T) makefile {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(apiserver.Root(), "hack", "*", "*.mk"))
	require.NoError(t, err)
	target := regexp.MustCompile(`(?m)^([a-z0-9-]+):(?:[^=]|$)`)
	variable := regexp.MustCompile(`(?m)^(?:export )?([A-Z_]+) *\?=`)
	out := makefile{map[string]bool{}, map[string]bool{}}
	for _, file := range append(files, filepath.Join(apiserver.Root(), "Makefile")) {
		raw, err := os.ReadFile(file)
		require.NoError(t, err)
		for _, m := range target.FindAllSubmatch(raw, -1) {
			out.targets[string(m[1])] = true
		}
		for _, m := range variable.FindAllSubmatch(raw, -1) {
			out.variables[string(m[1])] = true
		}
	}
	require.True(t, out.targets["deploy"] && out.variables["GATEWAY_API_CHANNEL"])
	return out
}

func (m makefile) check(args []string) error {
	for _, arg := range args {
		if name, _, set := strings.Cut(arg, "="); set && !m.variables[name] {
			return fmt.Errorf("the Makefile takes no variable %s", name)
		} else if !set && !m.targets[arg] {
			return fmt.Errorf("the Makefile has no target %s", arg)
		}
	}
	return nil
}

// checkFairway asks the commands themselves. "a|b" stands for either, "..." for any command.
func checkFairway(args []string) error {
	if n := slices.Index(args, "..."); n >= 0 {
		args = args[:n]
	}
	for n, arg := range args {
		before, after, several := strings.Cut(arg, "|")
		if !several {
			continue
		}
		for _, one := range []string{before, after} {
			if err := checkFairway(slices.Concat(args[:n], []string{one}, args[n+1:])); err != nil {
				return err
			}
		}
		return nil
	}
	root := cli.Root(&cobra.Command{Use: "fairway"})
	root.AddCommand(command.Operator(), command.Agent())
	root.InitDefaultCompletionCmd() // it comes with the first command line otherwise
	cmd, rest, err := root.Find(args)
	if err != nil {
		return err
	}
	// Arguments are for commands that have no others below them.
	if cmd.HasSubCommands() && slices.ContainsFunc(rest, func(arg string) bool { return !strings.HasPrefix(arg, "-") }) {
		return fmt.Errorf("%s has no command %s", cmd.CommandPath(), rest[0])
	}
	for _, arg := range rest {
		if !strings.HasPrefix(arg, "-") {
			continue
		}
		name, _, _ := strings.Cut(arg, "=")
		if lookUp(cmd, name) == nil {
			return fmt.Errorf("%s has no flag %s", cmd.CommandPath(), name)
		}
	}
	return nil
}

func lookUp(cmd *cobra.Command, name string) *pflag.Flag {
	cmd.InitDefaultHelpFlag()
	cmd.InheritedFlags() // adds those of the commands above
	if long, ok := strings.CutPrefix(name, "--"); ok {
		return cmd.Flags().Lookup(long)
	}
	return cmd.Flags().ShorthandLookup(strings.TrimPrefix(name, "-"))
}

// kubectlHelp is what kubectl says of its commands; it is asked once for each.
type kubectlHelp struct{ pages map[string]string }

func (k *kubectlHelp) check(t *testing.T, args []string) error {
	t.Helper()
	verb := slices.IndexFunc(args, regexp.MustCompile(`^[a-z]+(-[a-z]+)?$`).MatchString)
	if verb < 0 {
		return nil // the bare name
	}
	// kubectl -n NAMESPACE VERB
	if verb > 0 && args[verb-1] == "-n" {
		return k.check(t, slices.Concat(args[:verb-1], args[verb+1:]))
	}
	help := k.help(t, args[verb], "--help")
	if !strings.Contains(help, "Usage:") {
		return fmt.Errorf("kubectl has no command %s", args[verb])
	}
	if strings.Contains(help, "Available Commands:") && verb+1 < len(args) {
		help += k.help(t, args[verb], args[verb+1], "--help")
	}
	help += k.help(t, "options")
	for _, arg := range args {
		flag, _, _ := strings.Cut(arg, "=")
		known := strings.Contains(help, " "+flag+"=") || strings.Contains(help, " "+flag+", ")
		if strings.HasPrefix(flag, "-") && !known {
			return fmt.Errorf("kubectl %s has no flag %s", args[verb], flag)
		}
	}
	return nil
}

func (k *kubectlHelp) help(t *testing.T, cmd ...string) string {
	t.Helper()
	key := strings.Join(cmd, " ")
	if _, ok := k.pages[key]; !ok {
		bin, err := apiserver.BinDir()
		if err != nil {
			t.Skip(err.Error())
		}
		// An unknown command fails, and its output shows no usage.
		out, _ := exec.CommandContext(context.Background(), filepath.Join(bin, "kubectl"), cmd...).CombinedOutput()
		k.pages[key] = string(out)
	}
	return k.pages[key]
}
