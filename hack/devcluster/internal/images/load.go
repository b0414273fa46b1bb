// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package images

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"

	"golang.org/x/sync/errgroup"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/build"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/node"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/oci"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// BuildConformance builds the images that only the conformance suite needs, the components in them included, and
// returns their names.
func (b *Builder) BuildConformance(ctx context.Context) ([]string, error) {
	if err := b.Ensure(ctx, build.Components); err != nil {
		return nil, err
	}
	list, err := b.conformanceImages(ctx)
	if err != nil {
		return nil, err
	}
	return b.put(list)
}

// BuildOthers builds stock Envoy's image and the test tool's, and returns their names.
func (b *Builder) BuildOthers(ctx context.Context) ([]string, error) {
	var list []oci.Image
	for _, recipe := range []func(context.Context) (oci.Image, error){b.envoy, b.testTool} {
		i, err := recipe(ctx)
		if err != nil {
			return nil, err
		}
		list = append(list, i)
	}
	return b.put(list)
}

// BuildWorkingTree builds the product's own image alone, and returns its name.
func (b *Builder) BuildWorkingTree(ctx context.Context) ([]string, error) {
	i, err := b.workingTree(ctx)
	if err != nil {
		return nil, err
	}
	return b.put([]oci.Image{i})
}

// BuildCertManager builds cert-manager's image and returns its name.
func (b *Builder) BuildCertManager(ctx context.Context) ([]string, error) {
	i, err := b.certManagerImage(ctx)
	if err != nil {
		return nil, err
	}
	return b.put([]oci.Image{i})
}

// BuildNetworkPolicies builds what enforces NetworkPolicies, and its image, and returns the image's name.
func (b *Builder) BuildNetworkPolicies(ctx context.Context) ([]string, error) {
	if err := b.Ensure(ctx, []build.Component{build.NetworkPolicies}); err != nil {
		return nil, err
	}
	return b.put([]oci.Image{b.networkPolicies()})
}

func (b *Builder) put(list []oci.Image) ([]string, error) {
	var names []string
	for _, i := range list {
		name, err := b.Store.Put(i)
		if err != nil {
			return nil, err
		}
		names = append(names, name)
	}
	return names, b.Store.Collect()
}

// Loader loads images into all running nodes.
type Loader struct {
	Home  topology.Home
	Store *oci.Store
	Out   io.Writer
}

// Load loads images of the store by full name. A node that has an image already is left alone, and one that has some of
// its layers gets the others.
func (l *Loader) Load(ctx context.Context, names []string) error {
	return l.onNodes(ctx, func(ctx context.Context, n topology.Node) error {
		images, err := l.ctr(ctx, n, nil, "images", "list")
		if err != nil {
			return err
		}
		var need []string
		for _, name := range names {
			digest, err := l.Store.Digest(name)
			if err != nil {
				return err
			}
			if !listed(images, name, digest) {
				need = append(need, name)
			}
		}
		if len(need) == 0 {
			return nil
		}
		return l.send(ctx, n, need)
	})
}

// listed looks for an image in the output of `ctr images list`: its fields are name, media type, digest and so on.
func listed(output, name, digest string) bool {
	for _, line := range strings.Split(output, "\n") {
		f := strings.Fields(line)
		if len(f) > 2 && f[0] == name && f[2] == digest {
			return true
		}
	}
	return false
}

func (l *Loader) send(ctx context.Context, n topology.Node, names []string) error {
	content, err := l.ctr(ctx, n, nil, "content", "list", "--quiet")
	if err != nil {
		return err
	}
	have := map[string]bool{}
	for _, digest := range strings.Fields(content) {
		have[digest] = true
	}
	r, w := io.Pipe()
	go func() { w.CloseWithError(l.Store.Export(w, names, have)) }()
	_, err = l.ctr(ctx, n, r, "images", "import", "--local", "-")
	// The exporter must not wait for a reader that is gone.
	if err := errors.Join(err, r.Close()); err != nil {
		return err
	}
	for _, name := range names {
		fmt.Fprintf(l.Out, "%s: loaded %s\n", n.Name, name)
	}
	return nil
}

// LoadArchive loads an image archive (OCI or Docker) from a file. What an OCI archive names is known by its digest as
// well, as if it had been pulled: manifests of releases name images so.
func (l *Loader) LoadArchive(ctx context.Context, path string) error {
	tags, err := oci.Tags(path)
	if err != nil {
		return err
	}
	return l.onNodes(ctx, func(ctx context.Context, n topology.Node) error {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		if _, err := l.ctr(ctx, n, f, "images", "import", "--local", "-"); err != nil {
			return err
		}
		for name, byDigest := range tags {
			if _, err := l.ctr(ctx, n, nil, "images", "tag", "--force", name, byDigest); err != nil {
				return err
			}
		}
		fmt.Fprintf(l.Out, "%s: loaded %s\n", n.Name, path)
		return nil
	})
}

func (l *Loader) onNodes(ctx context.Context, f func(context.Context, topology.Node) error) error {
	g, ctx := errgroup.WithContext(ctx)
	for _, n := range topology.Nodes {
		g.Go(func() error {
			if err := f(ctx, n); err != nil {
				return fmt.Errorf("loading images into %s: %w", n.Name, err)
			}
			return nil
		})
	}
	return g.Wait()
}

// ctr runs containerd's client in a node and returns what it prints.
func (l *Loader) ctr(ctx context.Context, n topology.Node, in io.Reader, args ...string) (string, error) {
	inner, err := node.Command(l.Home, n.Name, append([]string{"ctr", "--namespace", "k8s.io"}, args...)...)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, inner.Path, inner.Args[1:]...)
	var out, errs bytes.Buffer
	cmd.Env, cmd.Stdin, cmd.Stdout, cmd.Stderr = inner.Env, in, &out, &errs
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("ctr %s: %w\n%s", args[0], err, errs.Bytes())
	}
	return out.String(), nil
}
