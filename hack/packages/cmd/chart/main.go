// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command chart writes Fairway's Helm chart from config/.
package main

import (
	"flag"
	"fmt"
	"os"

	"github.com/fairway-mesh/fairway/hack/packages/internal/chart"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	out := flag.String("out", "", "folder to write")
	flag.Parse()
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "chart:", err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	if out == "" {
		return fmt.Errorf("say with -out which folder to write")
	}
	files, err := chart.Generate(root, chart.Image{})
	if err != nil {
		return err
	}
	return source.Write(out, files, "templates")
}
