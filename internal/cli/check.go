// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// States of a check.
const (
	checkOK      = "ok"
	checkWarning = "warning"
	checkFailed  = "failed"
	// checkUnknown: it could not be asked.
	checkUnknown = "unknown"
	// checkNot: it takes a look into nodes.
	checkNot = "not checked"
)

// checked is what one check found.
type checked struct {
	Check string `json:"check"`
	State string `json:"state"`
	// Found is what there is, in a sentence.
	Found string `json:"found"`
	// Do is what to do about it.
	Do string `json:"do,omitempty"`
	// Docs is the section of the documents that helps.
	Docs string `json:"docs,omitempty"`
}

// checkReport is what `fairway check` shows and prints as JSON.
type checkReport struct {
	// OK: nothing failed, and nothing that could be asked was not found out.
	OK     bool      `json:"ok"`
	Checks []checked `json:"checks"`
}

// Sections of the documents that checks point to.
const (
	docsNeeds    = docsBase + "install.md#what-a-cluster-needs"
	docsUpgrade  = docsBase + "install.md#upgrade"
	docsPolicies = docsBase + "user-guide.md#networkpolicies"
)

// checker looks at what a cluster needs, before or after the mesh is installed.
type checker struct {
	*cluster
	system    string
	installed bool
	mesh      *v1alpha1.Mesh
	checks    []checked
}

func checkCommand() *cobra.Command {
	var (
		conn    connection
		output  outputFlag
		system  string
		timeout time.Duration
	)
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Say whether a cluster has what the mesh needs, before or after it is installed",
		Long: `Say whether a cluster has what the mesh needs: the version of Kubernetes, the kinds of the Gateway API, the nodes with
their kernels and container runtimes, and the rights of who installs it; whether other meshes or NetworkPolicies are in
its way; and, once it is installed, whether its parts are of one version.

It reads only, and looks into no node: what takes that is said not to be checked.

Exit code: 0 if nothing is missing (there may be warnings), 1 if something is, or could not be asked, 2 if the command
line is wrong.`,
		Example: "  fairway check\n\n  fairway check -o json | jq '.checks[] | select(.state != \"ok\")'",
		Args:    args(cobra.NoArgs),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := output.check(); err != nil {
				return err
			}
			ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
			defer cancel()
			c, err := conn.connect(ctx)
			if err != nil {
				return err
			}
			r := check(ctx, c, system)
			if err := output.print(cmd.OutOrStdout(), r, r.draw); err != nil {
				return err
			}
			if !r.OK {
				return errUnhealthy
			}
			return nil
		},
	}
	conn.add(cmd)
	output.add(cmd)
	systemNamespaceFlag(cmd, &system)
	timeoutFlag(cmd.Flags(), &timeout, defaultTimeout, "give up after this time, and show what was found")
	return cmd
}

// check runs all checks.
func check(ctx context.Context, c *cluster, system string) checkReport {
	k := &checker{cluster: c, system: system}
	m := &v1alpha1.Mesh{}
	err := c.client.Get(ctx, types.NamespacedName{Name: names.Mesh}, m)
	k.installed = !meta.IsNoMatchError(err)
	if err == nil {
		k.mesh = m
	}
	k.checkKubernetes()
	k.checkGatewayAPI(ctx)
	k.checkNodes(ctx)
	k.checkRights(ctx)
	k.checkOtherMeshes(ctx)
	k.checkNetworkPolicies(ctx)
	k.checkVersions(ctx)
	k.say(checked{
		Check: "inside of nodes", State: checkNot,
		Found: "nftables and its modules, the CNI directories, the limit of open files: agents say so once they run",
		Do:    "run fairway status after the installation", Docs: docsNeeds,
	})
	r := checkReport{OK: true, Checks: k.checks}
	for _, c := range k.checks {
		r.OK = r.OK && c.State != checkFailed && c.State != checkUnknown
	}
	return r
}

func (k *checker) say(c checked) { k.checks = append(k.checks, c) }

func (r checkReport) draw(t *table) {
	rows := make([][]string, 0, len(r.Checks))
	for _, c := range r.Checks {
		rows = append(rows, []string{c.Check, c.State, oneLine(c.Found)})
	}
	t.rows([]string{"CHECK", "STATE", "FOUND"}, rows)
	first := true
	for _, c := range r.Checks {
		if c.Do == "" {
			continue
		}
		if first {
			t.line("\nWhat to do:")
			first = false
		}
		t.line("  - %s: %s", c.Check, c.Do)
		if c.Docs != "" {
			t.line("    see %s", c.Docs)
		}
	}
	if r.OK {
		t.line("\nThe cluster has what the mesh needs, as far as that was checked.")
	}
}
