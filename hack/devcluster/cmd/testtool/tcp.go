// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"time"

	"github.com/spf13/cobra"
)

func tcpServe() *cobra.Command {
	var name string
	var port int
	cmd := &cobra.Command{
		Use: "tcp-serve", Short: "TCP server that answers every line with its name and the line", Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			return tcpEcho(cmd.Context(), l, name)
		},
	}
	cmd.Flags().StringVar(&name, "name", "tool", "what the server calls itself")
	cmd.Flags().IntVar(&port, "port", 9000, "port to listen on")
	return cmd
}

func tcpEcho(ctx context.Context, l net.Listener, name string) error {
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return nil //nolint:nilerr // stopped, as asked
		}
		if err != nil {
			return err
		}
		go func() {
			defer c.Close()
			for s := bufio.NewScanner(c); s.Scan(); {
				if _, err := fmt.Fprintf(c, "%s %s %s\n", name, c.RemoteAddr(), s.Text()); err != nil {
					return
				}
			}
		}()
	}
}

func tcpSend() *cobra.Command {
	var timeout, interval time.Duration
	var count int
	cmd := &cobra.Command{
		Use: "tcp-send ADDRESS:PORT MESSAGE", Short: "Send a line over one TCP connection and print the answers",
		Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := (&net.Dialer{Timeout: timeout}).DialContext(cmd.Context(), "tcp", args[0])
			if err != nil {
				return err
			}
			defer c.Close()
			answers := bufio.NewReader(c)
			for i := range count {
				if i > 0 {
					time.Sleep(interval)
				}
				if err := c.SetDeadline(time.Now().Add(timeout)); err != nil {
					return err
				}
				if _, err := fmt.Fprintln(c, args[1]); err != nil {
					return err
				}
				line, err := answers.ReadString('\n')
				if err != nil {
					return fmt.Errorf("no answer: %w", err)
				}
				fmt.Fprint(cmd.OutOrStdout(), line)
			}
			return nil
		},
	}
	cmd.Flags().DurationVar(&timeout, "timeout", 5*time.Second, "give up after this time")
	cmd.Flags().IntVarP(&count, "count", "n", 1, "how many lines to send")
	cmd.Flags().DurationVar(&interval, "interval", 0, "wait between lines")
	return cmd
}
