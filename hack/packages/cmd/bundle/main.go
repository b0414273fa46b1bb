// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bundle writes the bundle for the Operator Lifecycle Manager from config/. Nothing in it is edited by hand,
// and the same config/ gives the same bundle, byte by byte.
package main

import (
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"

	"github.com/fairway-mesh/fairway/hack/packages/internal/bundle"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	out := flag.String("out", "", "folder to write (default: bundle in the root)")
	flag.Parse()
	if err := run(*root, cmp.Or(*out, filepath.Join(*root, "bundle"))); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	src, err := source.Load(root)
	if err != nil {
		return err
	}
	files, err := bundle.Generate(src)
	if err != nil {
		return err
	}
	return source.Write(out, files, "manifests", "metadata", "tests")
}
