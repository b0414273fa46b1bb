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
	// defaultWait is likewise that of --wait.
	defaultWait = 5 * time.Minute
	// settleTime is how long status looks again while a proxy has not answered for what it was sent: an answer takes
	// milliseconds, so a proxy that is still pending then is worth telling about.
	settleTime = 2 * time.Second
	settleStep = 200 * time.Millisecond
)

// statusOptions are the flags of status.
type statusOptions struct {
	conn      connection
	output    outputFlag
	system    string
	namespace string
	wait      bool
	timeout   time.Duration
}

func statusCommand() *cobra.Command {
	var o statusOptions
	cmd := &cobra.Command{
		Use:   "status",
		Short: "Show whether the mesh works: nodes, captured pods, waypoints, proxies in sync",
		Long: `Show whether the mesh works: the conditions of the Mesh, the proxy of every node and the pods that it captures,
the waypoints with their routes, the Services that refuse connections, the policies and extensions that are not in force
as they are written, and for each proxy whether it runs what the operator sent it. What is wrong is listed at the end,
causes before what follows from them, with the section of the documents that helps.

Nodes, pods and waypoints are read from the API server. What the proxies acknowledged is asked of every operator replica
through a port-forward, so it takes the right to create pods/portforward in the operator's namespace. What could not be
asked is named.

Connections without identity are those that came to captured pods in plain text in the last hour, by the address that
they came from. Who comes by a NodePort or load balancer with externalTrafficPolicy Cluster has the address of a node.

With -n it shows a namespace alone, with the rights of those who may view it: which of its pods are captured, which
waypoint its Services have, and its routes and policies. Nodes, proxies and the operator take other rights, and are not
looked at.

Exit code: 0 if all is well, 1 if not (or if that could not be determined), 2 if the command line is wrong. A route or a
policy with a mistake in it is shown, but is its owner's business: it doesn't change the exit code, but with -n.`,
		Example: `  # all at a glance
  fairway status

  # a namespace alone, for who has no rights on the cluster
  fairway status -n bookshop

  # wait for a new mesh in a script
  fairway status --wait --timeout 5m >/dev/null

  # the pods that could not be captured
  fairway status -o json | jq '.nodes[].uncaptured'`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.conn.add(cmd)
	o.output.add(cmd)
	systemNamespaceFlag(cmd, &o.system)
	f := cmd.Flags()
	f.StringVarP(&o.namespace, "namespace", "n", "", "show this namespace alone, with the rights of its users")
	o.conn.completeNamespace(cmd)
	f.BoolVar(&o.wait, "wait", false, "wait until all is well, and say on stderr what for (default timeout: 5m)")
	timeoutFlag(f, &o.timeout, defaultTimeout, "give up after this time, and show what was found")
	return cmd
}

// state is what a look at the mesh, or at a namespace, has found.
type state interface {
	well() bool
	// waitsFor is what is wrong, in a sentence.
	waitsFor() string
	draw(t *table, now time.Time)
}

func (o *statusOptions) run(cmd *cobra.Command) error {
	if err := o.output.check(); err != nil {
		return err
	}
	if o.wait && !cmd.Flags().Changed("timeout") {
		o.timeout = defaultWait
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	var found state
	var err error
	if o.wait {
		w := waiter{connect: o.conn.connect, look: o.look, out: cmd.ErrOrStderr()}
		found, err = w.run(ctx)
	} else {
		var c *cluster
		if c, err = o.conn.connect(ctx); err == nil {
			found = o.look(ctx, c)
		}
	}
	if err != nil {
		return err
	}
	now := time.Now()
	if err := o.output.print(cmd.OutOrStdout(), found, func(t *table) { found.draw(t, now) }); err != nil {
		return err
	}
	if !found.well() {
		return errUnhealthy
	}
	return nil
}

func (o *statusOptions) look(ctx context.Context, c *cluster) state {
	if o.namespace != "" {
		r := collectNamespace(ctx, c, o.system, o.namespace)
		return &r
	}
	r := collect(ctx, c, o.system)
	return &r
}
