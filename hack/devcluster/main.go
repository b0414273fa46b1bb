// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command devcluster runs a real two-node Kubernetes in network namespaces of this machine, without Docker, for
// developing and testing Fairway. See README.md.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run()) }

func run() int {
	// A plain user's PATH on Debian, and that of su, lacks the folders of nft, runc and their like.
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		return 1
	}
	// Pods of any user read what the nodes hold, whatever the umask of the one who starts them. Keys say so themselves.
	syscall.Umask(0o022)
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	if status := exitError(0); errors.As(err, &status) {
		return int(status) // a command run for the user, which has said itself what is wrong
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		return 1
	}
	return 0
}

// exitError is the error of a command that ran on the user's behalf and failed.
type exitError int

func (s exitError) Error() string { return fmt.Sprintf("exit status %d", int(s)) }

// passThrough runs a command with this program's own input and output.
func passThrough(cmd *exec.Cmd) error {
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) {
		return exitError(max(exit.ExitCode(), 1)) // -1: killed by a signal
	}
	return err
}

func root() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{
		Use: "devcluster", Short: "A real two-node Kubernetes in network namespaces, without Docker",
		SilenceUsage: true, SilenceErrors: true,
		TraverseChildren:  true, // so that flags of ours end where the command line of `in` and `kubectl` begins
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.locate() },
	}
	cmd.PersistentFlags().StringVar(
		&a.source, "source", "", "top of Fairway's source tree (default: found upwards from the working folder)")
	cmd.AddCommand(a.build(), a.up(), a.down(), a.clean(), a.images(), a.load(), a.certManager(), a.networkPolicies(),
		a.in(), a.kubectl(), a.env(), a.nodeInit(), a.lanAgent())
	return cmd
}
