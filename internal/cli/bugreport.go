// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"
)

const (
	// defaultReport bounds a whole report, itemTime one thing in it.
	defaultReport = 5 * time.Minute
	itemTime      = 30 * time.Second
	// defaultProxies is how many node proxies, and how many waypoints' proxies, are looked into.
	defaultProxies = 10
)

// bugReportOptions are the flags of bug-report.
type bugReportOptions struct {
	conn    connection
	system  string
	file    string
	proxies int
	timeout time.Duration
}

func bugReportCommand() *cobra.Command {
	var o bugReportOptions
	cmd := &cobra.Command{
		Use:   "bug-report",
		Short: "Collect what helps to find out what is wrong, without secrets, into one file",
		Long: `Collect what helps to find out what is wrong into one file (.tar.gz): versions, what status and check find, the objects
of the mesh's kinds and of the Gateway API with their statuses, namespaces, nodes, Services and their endpoints, pods of
the mesh, Events, the ends of the logs of operators, agents and Envoys, their metrics, and the configuration of Envoys.

What may be a secret is taken out before it is written: Secrets are not read at all; of pods, neither the environment
nor arguments and probes are kept; annotations of others, values of headers and parameters of queries, scripts, tokens,
passwords and private keys are replaced by "[redacted]". Names and labels of objects, addresses, identities and the
paths of requests in access logs stay: look at the file before you hand it on.

It says on stderr what it does and what it could not collect, and the file says so as well. It takes the rights of
status; to read logs and Events as well takes pods/log and events.

Exit code: 0 if the file was written, 1 if not, 2 if the command line is wrong.`,
		Example: "  fairway bug-report\n\n  fairway bug-report -o report.tar.gz --proxies 3",
		Args:    args(cobra.NoArgs),
		RunE:    func(cmd *cobra.Command, _ []string) error { return o.run(cmd) },
	}
	o.conn.add(cmd)
	systemNamespaceFlag(cmd, &o.system)
	f := cmd.Flags()
	f.StringVarP(&o.file, "output", "o", "", "file to write; it must not be there (default: "+
		"fairway-bug-report-TIME.tar.gz)")
	f.IntVar(&o.proxies, "proxies", defaultProxies,
		"how many proxies of nodes, and how many of waypoints, to look into; those that aren't ready come first")
	f.DurationVar(&o.timeout, "timeout", defaultReport, "stop collecting after this time, and write what was found")
	return cmd
}

func (o *bugReportOptions) run(cmd *cobra.Command) (err error) {
	if o.proxies < 0 {
		return usagef("--proxies %d: want 0 or more", o.proxies)
	}
	if o.timeout <= 0 {
		return usagef("--timeout %s: want more than 0", o.timeout)
	}
	if o.file == "-" {
		return usagef("-o -: a report goes into a file, for it is an archive; name one")
	}
	now := time.Now().UTC()
	if o.file == "" {
		o.file = "fairway-bug-report-" + now.Format("20060102-150405") + ".tar.gz"
	}
	c, err := o.conn.connect(cmd.Context()) // it has a time of its own
	if err != nil {
		return err
	}
	// Whoever may read the directory need not be who may read the cluster.
	file, err := os.OpenFile(filepath.Clean(o.file), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return fmt.Errorf("%s is there already: name another file with -o", o.file)
	} else if err != nil {
		return err
	}
	defer func() {
		if err = errors.Join(err, file.Close()); err != nil {
			err = errors.Join(err, os.Remove(file.Name()))
		}
	}()
	ctx, cancel := context.WithTimeout(cmd.Context(), o.timeout)
	defer cancel()
	b := newBugReport(c, o.system, o.proxies, now, file, cmd.ErrOrStderr())
	b.collect(ctx)
	if err := b.close(); err != nil {
		return fmt.Errorf("%s can't be written: %w", o.file, err)
	}
	_, err = fmt.Fprintln(cmd.OutOrStdout(), o.file)
	return err
}
