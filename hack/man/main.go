// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command man writes the manual pages of the user's commands into a folder, for the archives of a release.
package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/fairway-mesh/fairway/internal/cli"
	"github.com/fairway-mesh/fairway/internal/names"
)

func main() {
	out := flag.String("out", "", "folder to write to, which must be there")
	date := flag.String("date", "", "date of the pages (RFC 3339): the same gives the same bytes")
	flag.Parse()
	if err := run(*out, *date); err != nil {
		fmt.Fprintln(os.Stderr, "man: "+err.Error())
		os.Exit(1)
	}
}

func run(out, date string) error {
	at, err := time.Parse(time.RFC3339, date)
	if err != nil || out == "" {
		return errors.Join(errors.New("say -out FOLDER and -date TIME"), err)
	}
	root := cli.Root(&cobra.Command{
		Use: "fairway", Short: "Look at a Fairway mesh, and look after it", DisableAutoGenTag: true,
	})
	root.CompletionOptions.DisableDefaultCmd = true
	at = at.UTC()
	return doc.GenManTree(root, &doc.GenManHeader{
		Section: "1", Source: "Fairway " + names.Version, Manual: "Fairway", Date: &at,
	}, out)
}
