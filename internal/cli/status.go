// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
)

const (
	// defaultTimeout bounds a whole command.
	defaultTimeout = 15 * time.Second
	// settleTime is how long status looks again while a proxy has not answered for what it was sent: an answer takes
	// milliseconds, so a proxy that is still pending then is worth telling about.
	settleTime = 2 * time.Second
	settleStep = 200 * time.Millisecond
)

func statusCommand() *cobra.Command {
	var (
		conn    connection
		output  outputFlag
		system  string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the mesh works: nodes, captured pods, waypoints, proxies in sync",
		Long: `Show whether the mesh works: the conditions of the Mesh, the proxy of every node and the pods that it captures,
the waypoints with their routes, the policies and extensions that are not in force as they are written, and for each
proxy whether it runs what the operator sent it.

Nodes, pods and waypoints are read from the API server. What the proxies acknowledged is asked of every operator replica
through a port-forward, so it takes the right to create pods/portforward in the operator's namespace. What could not be
asked is named.

Connections without identity are those that came to captured pods in plain text in the last hour, by the address that
they came from. Who comes by a NodePort or load balancer with externalTrafficPolicy Cluster has the address of a node.

Exit code: 0 if all is well, 1 if not (or if that could not be determined), 2 if the command line is wrong. A route or a
policy with a mistake in it is shown, but is its owner's business: it doesn't change the exit code.`,
		Example: `  # all at a glance
  fairway status

  # wait for a new mesh in a script
  until fairway status >/dev/null; do sleep 1; done

  # the pods that could not be captured
  fairway status -o json | jq '.nodes[].uncaptured'`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			c, err := conn.connect()
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			r := collect(ctx, c, system)
			now := time.Now()
			if err := output.print(cmd.OutOrStdout(), r, func(t *table) { r.draw(t, now) }); err != nil {
				return err
			}
			if !r.Healthy {
				return errUnhealthy
			}
			return nil
		},
	}
	conn.add(cmd)
	output.add(cmd)
	systemNamespaceFlag(cmd, &system)
	cmd.Flags().DurationVar(&timeout, "timeout", defaultTimeout, "give up after this time, and show what was found")
	return cmd
}
