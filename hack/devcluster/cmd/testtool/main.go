// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command testtool is client and server in the pods of tests and demo: an HTTP server that says who it is and what it
// was asked, services that authorize and process requests, a client that counts answers, and a TCP echo.
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

func main() { os.Exit(run()) }

func run() int {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	root := &cobra.Command{
		Use: "tool", Short: "Client and server of Fairway's tests", SilenceUsage: true,
		SilenceErrors: true,
	}
	root.AddCommand(serve(), authorize(), process(), get(), load(), probe(), until(), tcpServe(), tcpSend(), tcpMirror(),
		sleep(), lookup())
	if err := root.ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func sleep() *cobra.Command {
	var most time.Duration
	cmd := &cobra.Command{
		Use: "sleep", Short: "Do nothing until told to stop", Args: cobra.NoArgs,
		Run: func(cmd *cobra.Command, _ []string) {
			ctx := cmd.Context()
			if most > 0 {
				var cancel context.CancelFunc
				ctx, cancel = context.WithTimeout(ctx, most)
				defer cancel()
			}
			<-ctx.Done()
		},
	}
	cmd.Flags().DurationVar(&most, "for", 0, "end after this time")
	return cmd
}

func lookup() *cobra.Command {
	return &cobra.Command{
		Use: "lookup NAME...", Short: "Print the addresses of host names", Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range args {
				addresses, err := net.DefaultResolver.LookupHost(cmd.Context(), name)
				if err != nil {
					return err
				}
				fmt.Println(name, addresses)
			}
			return nil
		},
	}
}
