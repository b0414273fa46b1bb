// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/types"
)

func waypointCommand() *cobra.Command {
	var conn connection
	cmd := &cobra.Command{
		Use:   "waypoint",
		Short: "List waypoints, or make one for a namespace",
		Args:  args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("%s: say what to do: list or apply", cmd.CommandPath())
		},
	}
	conn.add(cmd)
	conn.addNamespace(cmd)
	cmd.AddCommand(waypointListCommand(&conn), waypointApplyCommand(&conn))
	return cmd
}

// listedWaypoint is a waypoint as `fairway waypoint list` prints it as JSON.
type listedWaypoint struct {
	waypointReport
	// Services that go through it.
	Services []string `json:"services"`
	// Why it doesn't serve.
	Why string `json:"why,omitempty"`
}

// waypointList is what `fairway waypoint list` shows.
type waypointList struct {
	Waypoints   []listedWaypoint `json:"waypoints"`
	CouldNotAsk []string         `json:"couldNotAsk,omitempty"`
}

func waypointListCommand(conn *connection) *cobra.Command {
	var output outputFlag
	var system string
	var timeout time.Duration
	var all bool
	cmd := &cobra.Command{
		Use:   "list",
		Short: "List waypoints: whether they serve, and what",
		Long: `List the waypoints of all namespaces, or with -n of one: whether somebody has made them or they are automatic, whether
they serve, how many of their proxies are ready, which Services go through them and how many routes they have.

Exit code: 0 if they could be asked for, 1 if not, 2 if the command line is wrong.`,
		Example: "  fairway waypoint list\n\n  fairway waypoint list -n bookshop -o json",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			if all && conn.namespace() != "" {
				return usagef("-A and -n %s: want one of them", conn.namespace())
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			c, err := conn.connect(ctx)
			if err != nil {
				return err
			}
			l, err := listWaypoints(ctx, c, system, conn.namespace())
			if err != nil {
				return err
			}
			return output.print(cmd.OutOrStdout(), l, l.draw)
		},
	}
	cmd.SilenceUsage, cmd.SilenceErrors = true, true
	output.add(cmd)
	systemNamespaceFlag(cmd, &system)
	cmd.Flags().BoolVarP(&all, "all-namespaces", "A", false, "of all namespaces, as without -n")
	timeoutFlag(cmd.Flags(), &timeout, defaultTimeout, "give up after this time")
	return cmd
}

func listWaypoints(ctx context.Context, c *cluster, system, namespace string) (waypointList, error) {
	k := newCollector(c, system, namespace)
	k.readMesh(ctx)
	k.readObjects(ctx)
	k.judgeOperator(ctx)
	k.readWaypoints()
	switch {
	case namespace != "" && k.absent[whatNamespaces]:
		return waypointList{}, fmt.Errorf("there is no namespace %s", namespace)
	case k.unread[whatGateways] && namespace == "":
		return waypointList{}, fmt.Errorf("waypoints could not be asked for: %s (use -n NAMESPACE for one namespace)",
			k.whyUnread(whatGateways))
	case k.unread[whatGateways]:
		return waypointList{}, errors.New("waypoints could not be asked for: " + k.whyUnread(whatGateways))
	}
	out := waypointList{Waypoints: []listedWaypoint{}}
	if len(k.forbidden) > 0 {
		out.CouldNotAsk = append(out.CouldNotAsk, "you have no right to read "+and(k.forbidden))
	}
	for _, why := range k.failed.words {
		out.CouldNotAsk = append(out.CouldNotAsk, and(k.failed.members[why])+": "+why)
	}
	bound := k.boundServices()
	for _, w := range k.report.Waypoints {
		l := listedWaypoint{waypointReport: w}
		if k.meaning != nil {
			l.Services = append([]string{}, bound[types.NamespacedName{Namespace: w.Namespace, Name: w.Name}]...)
		}
		about := "Gateway " + w.Namespace + "/" + w.Name
		for _, p := range k.ProblemDetails {
			if p.About == about {
				l.Why = p.Text
			}
		}
		out.Waypoints = append(out.Waypoints, l)
	}
	slices.SortFunc(out.Waypoints, func(a, b listedWaypoint) int {
		return cmp.Or(cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name))
	})
	return out, nil
}

func (l waypointList) draw(t *table) {
	if len(l.Waypoints) == 0 {
		t.line("No waypoints.")
	}
	var rows [][]string
	for _, w := range l.Waypoints {
		kind, ready, services := "explicit", unknownCell, unknownCell
		if w.Automatic {
			kind = "automatic"
		}
		if w.Ready != nil {
			ready = fmt.Sprintf("%d/%d", *w.Ready, *w.Replicas)
		}
		if w.Services != nil {
			services = dash(strings.Join(w.Services, ", "))
			if len(w.Services) > mostNames {
				services = enumerate(w.Services)
			}
		}
		rows = append(rows, []string{
			w.Namespace + "/" + w.Name, kind, yesNo(w.Programmed), ready, services, number(w.Routes),
		})
	}
	t.rows([]string{"WAYPOINT", "KIND", "PROGRAMMED", "READY", "SERVICES", "ROUTES"}, rows)
	for _, w := range l.Waypoints {
		if w.Why != "" {
			t.line("  - %s", w.Why)
		}
	}
	drawCouldNotAsk(t, l.CouldNotAsk)
}
