// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/introspect"
)

// proxyView is one subcommand of `fairway proxy`.
type proxyView struct {
	name, short string
	// path of Envoy's admin interface.
	path string
	// section picks what -o json prints of the answer; nil prints all.
	section func(answer []byte) (json.RawMessage, error)
	// nameOf is a resource's name in the arrays of the section, which -o json leaves out if it is not the named pod's; nil
	// leaves nothing out.
	nameOf func(entry map[string]any) string
	// keeps tells whether a resource belongs to the pod.
	keeps func(f filter, name string) bool
	// draw writes the table.
	draw func(t *table, section json.RawMessage, f filter, now time.Time) error
}

func proxyViews() []proxyView {
	return []proxyView{
		{
			"clusters", "Show where a proxy connects to: clusters, endpoints, their health and use", "clusters?format=json",
			whole, nil, nil, drawClusters,
		},
		{
			"routes", "Show a proxy's route configurations: what is matched, and where it goes", "config_dump",
			dumpSection("RoutesConfigDump"), nameOfRoutes, filter.route, drawRoutes,
		},
		{
			"listeners", "Show what a proxy listens on", "config_dump", dumpSection("ListenersConfigDump"), nameOfEntry,
			filter.listener, drawListeners,
		},
		{
			"secrets", "Show the certificates that a proxy holds, never their keys", "config_dump",
			dumpSection("SecretsConfigDump"), nameOfEntry, filter.secret, drawSecrets,
		},
	}
}

func proxyCommand() *cobra.Command {
	var conn connection
	var system string
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Show the configuration of a pod's Envoy",
		Long: `Show what an Envoy of the mesh runs, by asking the agent beside it through a port-forward.

POD is a waypoint's pod, a node proxy's pod (in the operator's namespace), or an application's pod: then it is the proxy
of the pod's node that answers, and listeners and secrets are those of the pod; it has no routes. Clusters of a node
proxy, and connections, are shared by all pods of the node, so all are shown; a cluster is there once someone on the
node has dialled its address.

In place of POD, deploy/NAME, ds/NAME, sts/NAME, svc/NAME and gateway/NAME mean one of their pods, a ready one if there
is one. NAME.NAMESPACE does as well.

Exit code: 0 if the proxy answered, 1 if it could not be asked, 2 if the command line is wrong.`,
		Args: args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s: name what to show: clusters, routes, listeners, secrets, connections or log-level",
				cmd.CommandPath())
		},
	}
	conn.add(cmd)
	conn.addNamespace(cmd)
	cmd.PersistentFlags().StringVar(&system, "system-namespace", defaultSystemNamespace,
		"namespace that the operator and the node proxies run in")
	for _, v := range proxyViews() {
		cmd.AddCommand(v.command(&conn, &system))
	}
	cmd.AddCommand(connectionsCommand(&conn, &system), logLevelCommand(&conn, &system))
	return cmd
}

// examples leave out an application's pod where there is nothing to show for one.
func (v proxyView) examples() string {
	out := fmt.Sprintf(`  # of a waypoint, as Envoy says it
  fairway proxy %s -n bookshop fairway-waypoint-6c9d8f7b5-q4w2z -o json`, v.name)
	if v.name == "routes" {
		return out
	}
	return fmt.Sprintf(`  # of an application's pod: its node's proxy answers
  fairway proxy %s -n bookshop shop-5d4f7c9b8-x2x7k

`, v.name) + out
}

func (v proxyView) command(conn *connection, system *string) *cobra.Command {
	return proxySubcommand(conn, system, v.name, v.short, v.examples(),
		func(ctx context.Context, c *cluster, a askedProxy, o *outputFlag, cmd *cobra.Command) error {
			return v.run(ctx, c, a, o, cmd.OutOrStdout(), cmd.ErrOrStderr())
		})
}

// askedProxy is a proxy, and the pod for which it answers.
type askedProxy struct {
	target
	of types.NamespacedName
}

// proxySubcommand asks one proxy.
func proxySubcommand(
	conn *connection, system *string, name, short, example string,
	ask func(context.Context, *cluster, askedProxy, *outputFlag, *cobra.Command) error,
) *cobra.Command {
	var output outputFlag
	var timeout time.Duration
	cmd := &cobra.Command{
		Use:     name + " POD",
		Short:   short,
		Example: example,
		Args:    args(cobra.ExactArgs(1)),
		RunE: func(cmd *cobra.Command, given []string) error {
			if err := output.check(); err != nil {
				return err
			}
			c, err := conn.connect(cmd.Context())
			if err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			pod, note, err := podFor(ctx, c, given[0])
			if err != nil {
				return err
			}
			t, err := findProxy(ctx, c, *system, pod)
			if err != nil {
				return err
			}
			for _, n := range []string{note, t.note} {
				if n != "" {
					if err := sayLine(cmd.ErrOrStderr(), n); err != nil {
						return err
					}
				}
			}
			return ask(ctx, c, askedProxy{t, pod}, &output, cmd)
		},
	}
	cmd.ValidArgsFunction = conn.completePod
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	output.add(cmd)
	timeoutFlag(cmd.Flags(), &timeout, 30*time.Second, "give up after this time")
	return cmd
}

func connectionsCommand(conn *connection, system *string) *cobra.Command {
	return proxySubcommand(conn, system, "connections", "Show which connections of a proxy are open, and to where",
		"  # of a waypoint\n  fairway proxy connections -n bookshop gateway/fairway-waypoint",
		func(ctx context.Context, c *cluster, a askedProxy, o *outputFlag, cmd *cobra.Command) error {
			found, err := askConnections(ctx, c, a.target)
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), found, found.draw)
		})
}

func logLevelCommand(conn *connection, system *string) *cobra.Command {
	return proxySubcommand(
		conn, system, "log-level", "Show the log level that a proxy has started with, and where it is set",
		"  fairway proxy log-level -n bookshop gateway/fairway-waypoint",
		func(ctx context.Context, c *cluster, a askedProxy, o *outputFlag, cmd *cobra.Command) error {
			found, err := askLogLevel(ctx, c, a.target)
			if err != nil {
				return err
			}
			return o.print(cmd.OutOrStdout(), found, found.draw)
		})
}

func (v proxyView) run(
	ctx context.Context, c *cluster, target askedProxy, o *outputFlag, out, notes io.Writer,
) error {
	answer, err := c.reach.get(ctx, target.pod, introspect.PathEnvoy+v.path)
	if err != nil {
		return err
	}
	section, err := v.section(answer)
	if err != nil {
		return fmt.Errorf("proxy %s: %w", target.pod, err)
	}
	if section, err = v.prune(section, target.filter); err != nil {
		return fmt.Errorf("proxy %s: %w", target.pod, err)
	}
	var drawErr error
	err = o.print(out, section, func(t *table) {
		if drawErr = v.draw(t, section, target.filter, time.Now()); drawErr == nil && t.empty() {
			drawErr = sayLine(notes, fmt.Sprintf("pod %s has no %s", target.of, v.name))
		}
	})
	if drawErr != nil {
		return fmt.Errorf("proxy %s: %w", target.pod, drawErr)
	}
	return err
}

// prune leaves out the resources that are not the named pod's.
func (v proxyView) prune(section json.RawMessage, f filter) (json.RawMessage, error) {
	if f.all() || v.keeps == nil {
		return section, nil
	}
	var fields map[string]any
	if err := json.Unmarshal(section, &fields); err != nil {
		return nil, fmt.Errorf("its answer can't be read: %w", err)
	}
	for key, value := range fields {
		if list, ok := value.([]any); ok {
			fields[key] = slices.DeleteFunc(list, func(entry any) bool {
				m, _ := entry.(map[string]any)
				return !v.keeps(f, v.nameOf(m))
			})
		}
	}
	return json.Marshal(fields)
}

func nameOfEntry(entry map[string]any) string {
	name, _ := entry["name"].(string)
	return name
}

// nameOfRoutes looks into the state of a route configuration, which has no name itself.
func nameOfRoutes(entry map[string]any) string {
	config, _ := entry["route_config"].(map[string]any)
	return nameOfEntry(config)
}

// whole answers are shown as they are.
func whole(answer []byte) (json.RawMessage, error) { return answer, nil }

// dumpSection picks one part of Envoy's configuration dump (envoy.admin.v3.ConfigDump) by the name of its message.
func dumpSection(name string) func([]byte) (json.RawMessage, error) {
	return func(answer []byte) (json.RawMessage, error) {
		var dump struct {
			Configs []json.RawMessage `json:"configs"`
		}
		if err := json.Unmarshal(answer, &dump); err != nil {
			return nil, fmt.Errorf("its configuration dump can't be read: %w", err)
		}
		for _, c := range dump.Configs {
			var t struct {
				Type string `json:"@type"`
			}
			if err := json.Unmarshal(c, &t); err == nil && t.Type == resource.APITypePrefix+"envoy.admin.v3."+name {
				return c, nil
			}
		}
		return json.RawMessage("{}"), nil // Envoy leaves empty parts out
	}
}
