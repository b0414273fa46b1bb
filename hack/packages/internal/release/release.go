// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package release writes everything that a release publishes, from a commit: manifests, the Helm chart, the bundle and
// a catalogue for the Operator Lifecycle Manager, images with lists of contents, the user's commands, notes and sums.
//
// The same commit, built by the same Go, gives the same bytes: times are the commit's, and archives hold nothing of the
// machine. It publishes nothing by itself.
package release

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/hack/packages/internal/archive"
	"github.com/fairway-mesh/fairway/hack/packages/internal/bundle"
	"github.com/fairway-mesh/fairway/hack/packages/internal/chart"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// Options of a release.
type Options struct {
	// Root of the repository, and Out, the folder to write.
	Root, Out string
	// Version with "v", which the tree must have.
	Version string
	// Registry that the images will be pushed to, as in registry.example/mesh: manifests name them there, by digest.
	// Empty leaves them as config/default has them.
	Registry string
	// Envoy is the image of Envoy that manifests name, by digest, as in envoyproxy/envoy@sha256:...; empty leaves it to
	// the tag that config/default has, with which a mirror of all images by digest isn't possible.
	Envoy string
	// Catalog is a file with the catalogue of the release before, whose versions the new one has, too. Empty makes one
	// of this version alone.
	Catalog string
	// AllowDirty takes a tree with changes that aren't committed.
	AllowDirty bool
	// Platforms that programs and images are for, as in linux/amd64; empty means all. A trial needs one, in a fraction of
	// the time.
	Platforms []string
	Log       io.Writer

	// programs makes the programs of a platform; nil builds them.
	programs func(p platform) (programs, error)
	// manual makes the pages of the manual, by name; nil has hack/man make them.
	manual func() (map[string][]byte, error)
}

// sums is the file that a folder with a release has.
const sums = "SHA256SUMS"

// writer writes the files of a release.
type writer struct {
	Options
	tree
	src *source.Source
	// number is the version without "v".
	number string
	// platforms that programs are built for; images are for those of Linux.
	platforms []platform
	// pages of the manual, by name.
	pages map[string][]byte
}

// Write writes a release.
func Write(o Options) error {
	w := &writer{Options: o}
	var err error
	if w.src, err = source.Load(o.Root); err != nil {
		return err
	}
	if w.number, err = w.src.Version(); err != nil {
		return err
	}
	if o.Version != "v"+w.number {
		return fmt.Errorf("VERSION is %q, and the tree is v%s: set the version in config/default/kustomization.yaml, "+
			"config/manager/manager.yaml and internal/names, then make generate, and commit", o.Version, w.number)
	}
	if w.platforms, err = choose(o.Platforms); err != nil {
		return err
	}
	if err := w.setEnvoy(); err != nil {
		return err
	}
	if w.tree, err = readTree(o.Root, o.AllowDirty); err != nil {
		return err
	}
	if err := empty(o.Out); err != nil {
		return err
	}
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"manual", w.makeManual},
		{"programs and images", w.images},
		{"manifests", w.manifests},
		{"chart", w.chart},
		{"bundle and catalogue", w.bundle},
		{"the user's commands", w.commands},
		{"notes", w.notes},
		{"sums", w.sums},
	} {
		fmt.Fprintln(o.Log, "release: "+step.name)
		if err := step.do(); err != nil {
			return fmt.Errorf("%s: %w", step.name, err)
		}
	}
	return nil
}

// byDigest is how an image is named that can't change.
var byDigest = regexp.MustCompile(`^[a-z0-9][\w.:/-]*@sha256:[0-9a-f]{64}$`)

func (w *writer) setEnvoy() error {
	if w.Envoy == "" {
		return nil
	}
	if !byDigest.MatchString(w.Envoy) {
		return fmt.Errorf("ENVOY is %q: name the image by digest, as in envoyproxy/envoy@sha256:<digest>", w.Envoy)
	}
	return w.src.SetEnvoy(w.Envoy)
}

// empty makes the folder. What a former release wrote there goes; what something else did is not touched.
func empty(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if len(entries) > 0 {
		if _, err := os.Stat(filepath.Join(dir, sums)); err != nil {
			return fmt.Errorf("%s holds something else than a finished release (it has no %s): remove it, or name another "+
				"folder with DIST=", dir, sums)
		}
		if err := os.RemoveAll(dir); err != nil {
			return err
		}
	}
	return os.MkdirAll(dir, 0o755)
}

func (w *writer) write(name string, data []byte) error {
	file := filepath.Join(w.Out, filepath.FromSlash(name))
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return err
	}
	return os.WriteFile(file, data, 0o644)
}

// manifests for kubectl apply.
func (w *writer) manifests() error {
	before, err := source.Render(filepath.Join(w.Root, "config", "agents-before-1.36"))
	if err != nil {
		return err
	}
	for name, objects := range map[string][]source.Object{
		"install.yaml": w.src.Objects, "crds.yaml": w.src.Of("CustomResourceDefinition"), "agents-before-1.36.yaml": before,
	} {
		b, err := source.Print(objects)
		if err != nil {
			return err
		}
		if err := w.write(name, b); err != nil {
			return err
		}
	}
	b, err := os.ReadFile(filepath.Join(w.Root, "config", "samples", "fairway_v1alpha1_mesh.yaml"))
	if err != nil {
		return err
	}
	return w.write("mesh.yaml", b)
}

func (w *writer) chart() error {
	var image chart.Image
	if w.Registry != "" {
		named, err := w.src.Image()
		if err != nil {
			return err
		}
		image.Repository, image.Digest, _ = strings.Cut(named, "@")
	}
	image.EnvoyRepository, image.EnvoyDigest, _ = strings.Cut(w.Envoy, "@")
	files, err := chart.Generate(w.Root, image)
	if err != nil {
		return err
	}
	license, err := w.license()
	if err != nil {
		return err
	}
	b, err := archive.TarGz(append(archive.Files("fairway", files), archive.File{Name: "fairway/LICENSE", Data: license}),
		w.time)
	if err != nil {
		return err
	}
	return w.write("fairway-"+w.number+".tgz", b)
}

func (w *writer) bundle() error {
	// Of its own: the bundle takes namespaces out of objects.
	src, err := source.Load(w.Root)
	if err != nil {
		return err
	}
	image, err := w.src.Image()
	if err != nil {
		return err
	}
	if err := src.SetImage(image); err != nil {
		return err
	}
	if w.Envoy != "" {
		if err := src.SetEnvoy(w.Envoy); err != nil {
			return err
		}
	}
	files, err := bundle.Generate(src)
	if err != nil {
		return err
	}
	b, err := archive.TarGz(archive.Files("fairway-bundle", files), w.time)
	if err != nil {
		return err
	}
	if err := w.write("fairway-bundle-"+w.number+".tgz", b); err != nil {
		return err
	}
	named, err := w.bundleImage(src, files)
	if err != nil {
		return err
	}
	var former []byte
	if w.Catalog != "" {
		if former, err = os.ReadFile(w.Catalog); err != nil {
			return err
		}
	}
	catalog, err := bundle.Catalog(src, named, former)
	if err != nil {
		return err
	}
	return w.write("catalog/fairway/catalog.yaml", catalog)
}

func (w *writer) notes() error {
	b, err := Notes(filepath.Join(w.Root, "changelogs", "unreleased"), w.Version)
	if err != nil {
		return err
	}
	return w.write("notes.md", b)
}

func (w *writer) license() ([]byte, error) { return os.ReadFile(filepath.Join(w.Root, "LICENSE")) }

// sums of all files, as sha256sum --check reads them.
func (w *writer) sums() error {
	var lines []string
	err := filepath.WalkDir(w.Out, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		h := sha256.New()
		if _, err := io.Copy(h, f); err != nil {
			return err
		}
		name, err := filepath.Rel(w.Out, path)
		lines = append(lines, hex.EncodeToString(h.Sum(nil))+"  "+filepath.ToSlash(name)+"\n")
		return err
	})
	if err != nil {
		return err
	}
	slices.SortFunc(lines, func(a, b string) int { return strings.Compare(a[64:], b[64:]) })
	return w.write(sums, []byte(strings.Join(lines, "")))
}
