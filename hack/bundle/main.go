// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command bundle writes the bundle for the Operator Lifecycle Manager from config/: the ClusterServiceVersion with the
// operator's Deployment and permissions, the CRDs, and what else config/default holds that a bundle may. Nothing in it
// is edited by hand, and the same config/ gives the same bundle, byte by byte.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "root of the repository")
	out := flag.String("out", "", "folder to write (default: bundle in the root)")
	flag.Parse()
	if *out == "" {
		*out = filepath.Join(*root, "bundle")
	}
	if err := run(*root, *out); err != nil {
		fmt.Fprintln(os.Stderr, "bundle:", err)
		os.Exit(1)
	}
}

func run(root, out string) error {
	src, err := load(root)
	if err != nil {
		return err
	}
	files, err := generate(src)
	if err != nil {
		return err
	}
	// What an earlier version wrote under another name must not stay.
	for _, dir := range []string{"manifests", "metadata"} {
		if err := os.RemoveAll(filepath.Join(out, dir)); err != nil {
			return err
		}
	}
	for name, content := range files {
		file := filepath.Join(out, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
