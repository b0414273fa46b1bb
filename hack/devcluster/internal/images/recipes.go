// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package images knows which images the dev cluster offers, builds them, and loads them into its nodes: those of the
// working tree, stock Envoy, and those of the tests.
package images

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/oci"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// Names of images as manifests write them.
const (
	Fairway     = "fairway.dev/fairway:v0.1.0"
	envoy       = "envoyproxy/envoy:distroless-v1.40.0"
	TestTool    = "fairway.dev/test/tool:v0.1.0"
	certManager = "fairway.dev/dev/cert-manager:v1.21.2"

	networkPolicies = "fairway.dev/dev/network-policies:v0.8.0"
)

// nonRoot is the user that images run as, unless a manifest says otherwise.
const nonRoot = "65532"

// base is what a program without a distribution around it may look for.
func base() oci.Layer {
	l := oci.Layer{
		{Path: "/etc/passwd", Data: []byte(
			"root:x:0:0:root:/root:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/home/nonroot:/sbin/nologin\n")},
		{Path: "/etc/group", Data: []byte("root:x:0:\nnonroot:x:65532:\n")},
		{Path: "/tmp/"},
	}
	const roots = "/etc/ssl/certs/ca-certificates.crt"
	if _, err := os.Stat(roots); err == nil {
		l = append(l, oci.File{Path: roots, Source: roots, Mode: 0o644})
	}
	return l
}

// program is an image of one static binary.
func program(name, binary, path string) oci.Image {
	return oci.Image{
		Name: name, User: nonRoot, Entrypoint: []string{path},
		Layers: []oci.Layer{base(), {{Path: path, Source: binary, Mode: 0o755}}},
	}
}

// Builder builds images into a store.
type Builder struct {
	*build.Builder
	Store *oci.Store
}

// goBuild builds packages of a module of the source tree into Home's work folder, statically, and returns the binary.
func (b *Builder) goBuild(ctx context.Context, module, pkg, name string) (string, error) {
	out := filepath.Join(b.Home.Work(), name)
	err := b.StepUnlessSoon("building "+name, func() error {
		return build.Go(ctx, filepath.Join(b.Source, module), nil, "build", "-trimpath", "-buildvcs=false",
			"-tags", "grpcnotrace", // as the Makefile has it
			"-ldflags", "-s -w", "-o", out, pkg) // a commit that changes no code changes no image
	})
	if err != nil {
		return "", fmt.Errorf("building %s: %w", name, err)
	}
	return out, nil
}

// Boot builds the two images that a node needs before anything else, as archives that it imports by itself.
func (b *Builder) Boot(ctx context.Context) error {
	pause, err := b.goBuild(ctx, "hack/devcluster", "./cmd/pause", "pause")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(b.Home.Boot(), 0o755); err != nil {
		return err
	}
	for archive, image := range map[string]oci.Image{
		"pause.tar":   program(topology.PauseImage, pause, "/pause"),
		"coredns.tar": coreDNS(b.Home, topology.CoreDNSImage),
	} {
		name, err := b.Store.Put(image)
		if err != nil {
			return err
		}
		if err := b.archive(filepath.Join(b.Home.Boot(), archive), name); err != nil {
			return err
		}
	}
	return nil
}

func (b *Builder) archive(path, name string) error {
	f, err := os.Create(path + ".tmp")
	if err != nil {
		return err
	}
	defer f.Close()
	if err := b.Store.Export(f, []string{name}, nil); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func coreDNS(home topology.Home, name string) oci.Image {
	i := program(name, filepath.Join(home.Bin(), "coredns"), "/coredns")
	i.User = "0" // listens on port 53
	return i
}

// workingTree is the product's own image: the binary of every subcommand and, beside it, the CNI plugin.
func (b *Builder) workingTree(ctx context.Context) (oci.Image, error) {
	fairway, err := b.goBuild(ctx, ".", ".", "fairway")
	if err != nil {
		return oci.Image{}, err
	}
	i := program(Fairway, fairway, "/fairway")
	const plugin = "internal/agent/cni/fairway-cni"
	if _, err := os.Stat(filepath.Join(b.Source, plugin)); err == nil {
		cni, err := b.goBuild(ctx, ".", "./"+plugin, "fairway-cni")
		if err != nil {
			return oci.Image{}, err
		}
		i.Layers = append(i.Layers, oci.Layer{{Path: "/fairway-cni", Source: cni, Mode: 0o755}})
	}
	return i, nil
}

// sharedLibrary matches the paths in the output of ldd, with and without an arrow.
var sharedLibrary = regexp.MustCompile(`(/\S+)\s+\(0x`)

// envoy is stock Envoy with the shared libraries of this machine.
func (b *Builder) envoy(ctx context.Context) (oci.Image, error) {
	if err := b.Envoy(ctx); err != nil {
		return oci.Image{}, err
	}
	out, err := exec.CommandContext(ctx, "ldd", b.EnvoyBinary()).Output()
	if err != nil {
		return oci.Image{}, fmt.Errorf("finding Envoy's shared libraries: %w", err)
	}
	i := program(envoy, b.EnvoyBinary(), "/usr/local/bin/envoy")
	i.Layers = append(i.Layers, libraries(string(out)))
	return i, nil
}

func libraries(ldd string) oci.Layer {
	var l oci.Layer
	for _, m := range sharedLibrary.FindAllStringSubmatch(ldd, -1) {
		l = append(l, oci.File{Path: m[1], Source: m[1], Mode: 0o755})
	}
	return l
}

func (b *Builder) testTool(ctx context.Context) (oci.Image, error) {
	tool, err := b.goBuild(ctx, "hack/devcluster", "./cmd/testtool", "testtool")
	return program(TestTool, tool, "/tool"), err
}

// certManagerImage is cert-manager's controllers, from the program in hack/certmanager.
func (b *Builder) certManagerImage(ctx context.Context) (oci.Image, error) {
	controller, err := b.goBuild(ctx, "hack/certmanager", ".", "cert-manager")
	return program(certManager, controller, "/cert-manager"), err
}

func (b *Builder) networkPolicies() oci.Image {
	i := program(networkPolicies, filepath.Join(b.Home.Bin(), build.NetworkPolicies.Name), "/network-policies")
	i.User = "0" // changes the node's packet filter
	return i
}
