// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command release writes everything that a release publishes; see package release. "make release" runs it.
package main

import (
	"flag"
	"fmt"
	"os"
	"strings"

	"github.com/fairway-mesh/fairway/hack/packages/internal/release"
)

func main() {
	o := release.Options{Log: os.Stderr}
	flag.StringVar(&o.Root, "root", ".", "root of the repository")
	flag.StringVar(&o.Out, "out", "dist", "folder to write")
	flag.StringVar(&o.Version, "version", "", "version, such as v0.1.0; the tree must have it")
	flag.StringVar(&o.Registry, "registry", "", "registry that images will be pushed to")
	flag.StringVar(&o.Envoy, "envoy", "", "image of Envoy that manifests name, by digest")
	flag.StringVar(&o.Catalog, "catalog", "", "catalogue of the release before, whose versions go into the new one")
	flag.BoolVar(&o.AllowDirty, "allow-dirty", false, "take a tree with changes that are not committed")
	flag.Func("platforms", "for a trial, such as linux/amd64, or several (default: all)", func(s string) error {
		o.Platforms = strings.Split(s, ",")
		return nil
	})
	flag.Parse()
	if err := release.Write(o); err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
}
