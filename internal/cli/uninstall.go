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
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/names"
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

What is about to be deleted, and what stays, is said first, and asked about unless --yes is given. Connections under way
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
	f.DurationVar(&o.timeout, "timeout", defaultUninstall, "give up waiting for the node proxies after this time")
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

// remover deletes the Mesh and follows what becomes of its node proxies.
type remover struct {
	client client.Client
	system string
	// step is the time between two looks.
	step  time.Duration
	notes io.Writer
	said  string
}

func (u *remover) run(ctx context.Context, p *removal) error {
	if p.mesh != nil {
		// What was shown is deleted, and nothing that came afterwards.
		err := u.client.Delete(ctx, p.mesh, client.Preconditions{UID: &p.mesh.UID})
		switch {
		case apierrors.IsNotFound(err) || meta.IsNoMatchError(err):
		case apierrors.IsForbidden(err):
			return errors.New("you have no right to delete the Mesh: a cluster administrator has")
		case err != nil:
			return fmt.Errorf("the Mesh can't be deleted: %s", plainly(err))
		default:
			u.say("deleted Mesh %s", p.mesh.Name)
		}
	}
	if p.nodes == 0 && !p.daemonSet {
		return nil
	}
	if p.operators == 0 {
		return errors.New("the Mesh is gone, but no operator runs that could let the pods go in order: the node proxies go " +
			"once the operator's Deployment is deleted, and cut connections under way; see " + docsUninstall)
	}
	t := time.NewTicker(u.step)
	defer t.Stop()
	for {
		left, gone, err := nodeProxies(ctx, u.client, u.system)
		switch {
		case err == nil && gone:
			u.say("DaemonSet %s is gone: no pod is captured any more", daemonSetName(u.system))
			return nil
		case err == nil:
			u.say("waiting for DaemonSet %s: %d node proxies are left", daemonSetName(u.system), left)
		case ctx.Err() == nil:
			u.say("waiting: %s", plainly(err))
		}
		select {
		case <-t.C:
		case <-ctx.Done():
			return fmt.Errorf("the Mesh is deleted, but DaemonSet %s is still there: nodes that are not ready, or an operator "+
				"that doesn't run, keep it (kubectl describe daemonset -n %s %s says which); run this command again to wait on",
				daemonSetName(u.system), u.system, names.NodeDaemonSet)
		}
	}
}

func (u *remover) say(format string, args ...any) {
	if text := fmt.Sprintf(format, args...); text != u.said {
		u.said = text
		_, _ = fmt.Fprintln(u.notes, text)
	}
}
