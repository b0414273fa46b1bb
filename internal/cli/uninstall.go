// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

// defaultUninstall bounds the wait for the node proxies.
const defaultUninstall = 5 * time.Minute

// uninstallOptions are the flags of uninstall.
type uninstallOptions struct {
	conn    connection
	system  string
	yes     bool
	dryRun  bool
	timeout time.Duration
}

func uninstallCommand() *cobra.Command {
	var o uninstallOptions
	cmd := &cobra.Command{
		Use:   "uninstall",
		Short: "Delete the Mesh, wait until all pods are let go, and say how to remove the rest",
		Long: `Delete the Mesh, and wait until the operator has let all pods go and has removed what it made, the node proxies last.
Then say with which commands the operator and the CRDs go, by what has installed them: Helm, the Operator Lifecycle
Manager, or kubectl. Those are left to you.

In which cluster, what is about to be deleted, and what stays, is said first, and asked about unless --yes is given. If
the operator runs in another namespace than --system-namespace, nothing is deleted. Connections under way
end by themselves as far as 45 seconds are enough; afterwards pods send and take plain text.

Exit code: 0 if the Mesh and its node proxies are gone (or with --dry-run), 1 if not, 2 if the command line is wrong or
nobody has said yes.`,
		Example: "  # what would be deleted, and what stays\n  fairway uninstall --dry-run\n\n  fairway uninstall --yes",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.conn.add(cmd)
	systemNamespaceFlag(cmd, &o.system)
	f := cmd.Flags()
	f.BoolVarP(&o.yes, "yes", "y", false, "don't ask")
	f.BoolVar(&o.dryRun, "dry-run", false, "say what would be done, and do nothing")
	timeoutFlag(f, &o.timeout, defaultUninstall, "give up waiting for the node proxies after this time")
	return cmd
}

func (o *uninstallOptions) run(cmd *cobra.Command) error {
	c, err := o.conn.connect(cmd.Context())
	if err != nil {
		return err
	}
	planning, cancel := context.WithTimeout(cmd.Context(), defaultTimeout)
	defer cancel()
	p, err := planRemoval(planning, c, o.system)
	if err != nil {
		return err
	}
	out := &table{out: cmd.OutOrStdout()}
	p.draw(out)
	if o.dryRun {
		p.drawNext(out)
		return out.err
	}
	if p.mesh != nil && !o.yes {
		if err := confirmed(cmd.InOrStdin(), cmd.ErrOrStderr()); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	u := remover{client: c.client, system: o.system, step: time.Second, notes: cmd.ErrOrStderr()}
	if err := u.run(ctx, p); err != nil {
		return err
	}
	p.drawNext(out)
	return out.err
}

// confirmed asks whoever sits at a terminal.
func confirmed(in io.Reader, notes io.Writer) error {
	if file, is := in.(*os.File); is {
		if info, err := file.Stat(); err != nil || info.Mode()&os.ModeCharDevice == 0 {
			return usagef("nothing was deleted: say --yes where nobody can be asked")
		}
	}
	_, _ = fmt.Fprint(notes, "\nGo on? Only \"yes\" is taken: ")
	line, err := bufio.NewReader(in).ReadString('\n')
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if strings.TrimSpace(line) != "yes" {
		return usagef("nothing was deleted")
	}
	return nil
}
