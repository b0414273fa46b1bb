// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/fairway-mesh/fairway/internal/names"
)

// Exit codes of all commands, beside 0.
const (
	// exitUnhealthy: the command worked and found something wrong, or could not find out.
	exitUnhealthy = 1
	// exitUsage: the command line makes no sense.
	exitUsage = 2
)

// exitError ends the process with a code. Without a text the command's output has said what is wrong.
type exitError struct {
	error
	code int
}

// ExitCode of the process.
func (e exitError) ExitCode() int { return e.code }

func (e exitError) Unwrap() error { return e.error }

// errUnhealthy ends a command that has already said what is wrong.
var errUnhealthy = exitError{errors.New(""), exitUnhealthy}

// usagef is about a command line that makes no sense.
func usagef(format string, args ...any) error {
	return exitError{fmt.Errorf(format, args...), exitUsage}
}

// commands are the user's commands, for the root command of the binary. An error that has a method ExitCode says how
// the process ends, and with an empty text there is nothing left to print; any other error means ExitUnhealthy.
func commands() []*cobra.Command {
	out := []*cobra.Command{
		statusCommand(), checkCommand(), describeCommand(), explainCommand(), proxyCommand(), versionCommand(),
		waypointCommand(), bugReportCommand(), uninstallCommand(),
	}
	for _, c := range out {
		c.SilenceUsage, c.SilenceErrors = true, true
		c.SetFlagErrorFunc(flagError)
	}
	return out
}

// Root gives the root command the exit codes of its subcommands: without one it shows its help, and a word that is none
// is a mistake in the command line.
func Root(root *cobra.Command) *cobra.Command {
	root.SilenceUsage, root.SilenceErrors = true, true
	root.Args = func(cmd *cobra.Command, given []string) error {
		if len(given) == 0 {
			return nil
		}
		if like := cmd.SuggestionsFor(given[0]); len(like) > 0 {
			return usagef("there is no command %q: is it %s?", given[0], strings.Join(like, " or "))
		}
		return usagef("there is no command %q (see %s --help)", given[0], cmd.CommandPath())
	}
	root.SuggestionsMinimumDistance = 2
	root.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(commands()...)
	return root
}

func flagError(c *cobra.Command, err error) error {
	return usagef("%w (see %s --help)", err, c.CommandPath())
}

// args turns cobra's complaint about arguments into a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, given []string) error {
		if err := check(cmd, given); err != nil {
			return usagef("%w: %s", err, cmd.UseLine())
		}
		return nil
	}
}

// systemNamespaceFlag is for commands that look for the mesh's own pods.
func systemNamespaceFlag(cmd *cobra.Command, to *string) {
	*to = names.SystemNamespace
	cmd.Flags().Var((*namespaceValue)(to), "system-namespace", "namespace that the operator runs in")
}

// timeoutFlag is how long a command may take: without any time it could find out nothing.
func timeoutFlag(f *pflag.FlagSet, to *time.Duration, usual time.Duration, usage string) {
	*to = usual
	f.Var((*timeoutValue)(to), "timeout", usage)
}

// timeoutValue is a flag's time, and more than none.
type timeoutValue time.Duration

func (v *timeoutValue) String() string { return time.Duration(*v).String() }
func (v *timeoutValue) Type() string   { return "duration" }

// Set by what was given.
func (v *timeoutValue) Set(given string) error {
	d, err := time.ParseDuration(given)
	if err != nil {
		return err
	}
	if d <= 0 {
		return errors.New("want more than 0s")
	}
	*v = timeoutValue(d)
	return nil
}

// namespaceValue is a flag's name of a namespace.
type namespaceValue string

func (v *namespaceValue) String() string { return string(*v) }
func (v *namespaceValue) Type() string   { return "string" }

// Set by what was given.
func (v *namespaceValue) Set(given string) error {
	if err := badNamespace(given); err != nil {
		return err
	}
	*v = namespaceValue(given)
	return nil
}

// badNamespace says why a name can't be that of a namespace.
func badNamespace(name string) error {
	if wrong := validation.IsDNS1123Label(name); len(wrong) > 0 {
		return fmt.Errorf("%q can't be the name of a namespace: %s", name, wrong[0])
	}
	return nil
}
