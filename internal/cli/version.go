// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"github.com/spf13/cobra"

	"github.com/fairway-mesh/fairway/internal/buildinfo"
	"github.com/fairway-mesh/fairway/internal/names"
)

// toOneVersion is what to do about parts of different versions.
const toOneVersion = "bring them to one version, the operator first: its node proxies follow"

// versions of this program and of what it deploys.
type versions struct {
	Version string `json:"version"`
	// Envoy is the image of the proxies that this version deploys.
	Envoy string `json:"envoy"`
	Go    string `json:"go"`
	// Revision is the commit that the program was built from, with "-dirty" if the tree had changes.
	Revision string `json:"revision,omitempty"`
}

func buildVersion() versions {
	return versions{
		Version: names.Version, Envoy: names.EnvoyImage, Go: runtime.Version(), Revision: buildinfo.Commit(),
	}
}

// draw writes the client alone.
func (v versions) draw(w *table) {
	w.line("fairway %s", v.Version)
	w.line("Envoy   %s", v.Envoy)
	w.line("Go      %s", v.Go)
	if v.Revision != "" {
		w.line("commit  %s", v.Revision)
	}
}

// versionOptions are the flags of version.
type versionOptions struct {
	conn    connection
	output  outputFlag
	system  string
	client  bool
	timeout time.Duration
}

func versionCommand() *cobra.Command {
	var o versionOptions
	cmd := &cobra.Command{
		Use:   "version",
		Short: "Print the versions of this program and of what runs in the cluster",
		Long: `Print the version and commit of this program, and of what runs in the cluster: the operator's replicas, the agents of
nodes and waypoints, and their Envoys. There is one line for each version of a part, with how many have it, and it is
said if they differ.

Each is asked through a port-forward, which takes the right to create pods/portforward in its namespace. Of those that
can't be asked, the tag of the image is shown.

Exit code: 0 if all could be asked, also where versions differ; 1 if not, or if nothing of the mesh is there; 2 if the
command line is wrong.`,
		Example: "  fairway version\n\n  # without a cluster\n  fairway version --client -o json",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.conn.add(cmd)
	o.output.add(cmd)
	systemNamespaceFlag(cmd, &o.system)
	cmd.Flags().BoolVar(&o.client, "client", false, "this program alone; no cluster is asked")
	timeoutFlag(cmd.Flags(), &o.timeout, defaultTimeout, "give up after this time, and show what was found")
	return cmd
}

func (o *versionOptions) run(cmd *cobra.Command) error {
	if err := o.output.check(); err != nil {
		return err
	}
	if o.client {
		v := buildVersion()
		return o.output.print(cmd.OutOrStdout(), v, v.draw)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	c, err := o.conn.connect(ctx)
	if err != nil { // the client's is known all the same
		v := buildVersion()
		if failed := o.output.print(cmd.OutOrStdout(), v, v.draw); failed != nil {
			return failed
		}
		return fmt.Errorf("the cluster's versions are not known: %w", err)
	}
	r := collectVersions(ctx, c, o.system)
	if err := o.output.print(cmd.OutOrStdout(), r, r.draw); err != nil {
		return err
	}
	if len(r.Unknown) > 0 || r.Absent != "" {
		return errUnhealthy
	}
	return nil
}
