// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command fairway is every part of the mesh in one binary: the operator, the agent beside each Envoy, and the user's
// commands (also as kubectl fairway).
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/fairway-mesh/fairway/internal/cli"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	defer stop()
	root := cli.Root(&cobra.Command{
		Use:   "fairway",
		Short: "Fairway is an ambient service mesh on stock Envoy, programmed by Gateway API",
	})
	root.AddCommand(serving()...)
	return report(root.ExecuteContext(ctx))
}

// report prints an error unless the command has said all there is, and picks the exit code.
func report(err error) int {
	if err == nil {
		return 0
	}
	var coded interface{ ExitCode() int }
	if errors.As(err, &coded) {
		if err.Error() != "" {
			fmt.Fprintln(os.Stderr, "fairway: "+cli.Printable(err))
		}
		return coded.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "fairway: "+cli.Printable(err))
	return 1
}
