// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// untilInterval is how often a URL that is waited for is asked: much finer than what is measured with it.
const untilInterval = 2 * time.Millisecond

func until() *cobra.Command {
	o := options{method: http.MethodGet, requests: 1, parallel: 1}
	name := ""
	cmd := &cobra.Command{
		Use: "until URL", Short: "Ask a URL until a server of a name answers 200, and print when that was",
		Long: "Ask a URL again and again. Print \"asking\" after the first answer, of whomever, and, once a server of the " +
			"wanted\n" +
			"name answers 200, the time just after in nanoseconds since 1970.",
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := o.client(args[0])
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
			defer cancel()
			return c.until(ctx, cmd.OutOrStdout(), name)
		},
	}
	f := cmd.Flags()
	f.StringVar(&name, "name", "", "the wanted name")
	f.StringArrayVarP(&o.headers, "header", "H", nil, "key:value (repeatable)")
	f.DurationVar(&o.timeout, "timeout", 60*time.Second, "give up after this time")
	f.DurationVar(&o.interval, "interval", untilInterval, "wait between requests")
	f.BoolVar(&o.noKeepAlive, "no-keepalive", false, "a new connection per request")
	return cmd
}

func (c *client) until(ctx context.Context, out io.Writer, name string) error {
	want := strings.TrimSpace(fmt.Sprintf("%d %s", http.StatusOK, name))
	for asked := 1; ; asked++ {
		kind, _ := c.kind(ctx)
		if kind == want {
			_, err := fmt.Fprintln(out, time.Now().UnixNano())
			return err
		}
		if asked == 1 {
			fmt.Fprintln(out, "asking")
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%s has not answered; the last answer of %d was: %s", name, asked, kind)
		case <-time.After(c.interval):
		}
	}
}
