// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"context"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/oci"
)

// imageField matches a container's image in a manifest.
var imageField = regexp.MustCompile(`(?m)^\s*(?:- )?image:\s*["']?([^\s"'#]+)`)

// conformanceImages builds the images that the Gateway API conformance suite's manifests name, under those names: its
// echo servers and CoreDNS from their sources. The suite is the one that test/conformance runs.
func (b *Builder) conformanceImages(ctx context.Context) ([]oci.Image, error) {
	dir := filepath.Join(b.Source, "test", "conformance")
	suite, err := build.ModuleDir(ctx, dir, "sigs.k8s.io/gateway-api/conformance")
	if err != nil {
		return nil, err
	}
	names, err := manifestImages(os.DirFS(suite), "base", "mesh", "tests")
	if err != nil {
		return nil, err
	}
	var out []oci.Image
	for _, name := range names {
		i, err := b.conformanceImage(ctx, name)
		if err != nil {
			return nil, err
		}
		out = append(out, i)
	}
	return out, nil
}

func (b *Builder) conformanceImage(ctx context.Context, name string) (oci.Image, error) {
	repository, _, _ := strings.Cut(path.Base(name), ":")
	switch repository {
	case "echo-basic":
		// Of whatever version: tests of the mesh name the one that tools/echo-basic pins. A later one is named for tests of
		// gateways, which nobody runs here.
		return program(name, filepath.Join(b.Home.Bin(), "echo-basic"), "/echo-basic"), nil
	case "echo-advanced":
		return b.echoAdvanced(ctx, name)
	case "coredns":
		return coreDNS(b.Home, name), nil
	}
	return oci.Image{}, fmt.Errorf("the conformance suite uses image %s: say in conformanceImage how to build it", name)
}

// echoAdvanced has the layout of Istio's test application: server, client, and the server's certificate at the top.
func (b *Builder) echoAdvanced(ctx context.Context, name string) (oci.Image, error) {
	istio, err := b.ToolModuleDir(ctx, "echo-advanced", "istio.io/istio")
	if err != nil {
		return oci.Image{}, err
	}
	certs := filepath.Join(istio, "tests", "testdata", "certs", "dns")
	return oci.Image{
		Name: name, User: "1338", Entrypoint: []string{"/usr/local/bin/server"},
		Layers: []oci.Layer{
			append(base(),
				oci.File{Path: "/cert.crt", Source: filepath.Join(certs, "cert-chain.pem"), Mode: 0o644},
				oci.File{Path: "/cert.key", Source: filepath.Join(certs, "key.pem"), Mode: 0o644}),
			{
				{Path: "/usr/local/bin/server", Source: filepath.Join(b.Home.Bin(), "server"), Mode: 0o755},
				{Path: "/usr/local/bin/client", Source: filepath.Join(b.Home.Bin(), "client"), Mode: 0o755},
			},
		},
	}, nil
}

// manifestImages returns the names of all images that YAML files below dirs use, sorted.
func manifestImages(suite fs.FS, dirs ...string) ([]string, error) {
	found := map[string]bool{}
	for _, dir := range dirs {
		err := fs.WalkDir(suite, dir, func(p string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || path.Ext(p) != ".yaml" {
				return err
			}
			data, err := fs.ReadFile(suite, p)
			for _, m := range imageField.FindAllSubmatch(data, -1) {
				found[string(m[1])] = true
			}
			return err
		})
		if err != nil {
			return nil, fmt.Errorf("reading the conformance suite's manifests: %w", err)
		}
	}
	var out []string
	for name := range found {
		out = append(out, name)
	}
	slices.Sort(out)
	return out, nil
}
