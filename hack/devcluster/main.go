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

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	err := root().ExecuteContext(ctx)
	// A command run for the user has said itself what is wrong.
	if exit := (*exec.ExitError)(nil); errors.As(err, &exit) && exit.ExitCode() > 0 {
		os.Exit(exit.ExitCode())
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "devcluster:", err)
		os.Exit(1)
	}
}

func root() *cobra.Command {
	a := &app{}
	cmd := &cobra.Command{
		Use: "devcluster", Short: "A real two-node Kubernetes in network namespaces, without Docker",
		SilenceUsage: true, SilenceErrors: true,
		TraverseChildren:  true, // so that flags of ours end where the command line of `in` and `kubectl` begins
		PersistentPreRunE: func(*cobra.Command, []string) error { return a.locate() },
	}
	cmd.PersistentFlags().StringVar(&a.source, "source", "", "top of Fairway's source tree (default: found upwards from the working folder)")
	cmd.AddCommand(a.build(), a.up(), a.down(), a.images(), a.load(), a.certManager(), a.in(), a.kubectl(), a.env(), a.nodeInit(), a.lanAgent())
	return cmd
}
