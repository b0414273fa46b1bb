// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package image makes container images of files, without a daemon and without a registry: an index of one image for
// each architecture, as an OCI archive, whose digest is known before anybody has pushed it.
//
// It isn't ko, which would be at hand: an image of Fairway has two programs, at paths that the operator's pods name,
// and ko makes an image of one, at a path of its own.
package image

import (
	"bytes"
	"io"
	"os"
	"path/filepath"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/tarball"
	"github.com/google/go-containerregistry/pkg/v1/types"

	"github.com/fairway-mesh/fairway/hack/packages/internal/archive"
)

// Spec says what an image is made of.
type Spec struct {
	// Files in the image, by path without the first slash.
	Files      []archive.File
	Entrypoint []string
	User       string
	Labels     map[string]string
	// Created is the time that the image tells.
	Created time.Time
}

// Build makes the image of an architecture.
func Build(s Spec, architecture string) (v1.Image, error) {
	var files bytes.Buffer
	if err := archive.Tar(&files, s.Files, s.Created); err != nil {
		return nil, err
	}
	layer, err := tarball.LayerFromOpener(func() (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(files.Bytes())), nil
	}, tarball.WithMediaType(types.OCILayer), tarball.WithCompressedCaching)
	if err != nil {
		return nil, err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	created := v1.Time{Time: s.Created.UTC()}
	img, err = mutate.Append(img, mutate.Addendum{
		Layer: layer, MediaType: types.OCILayer, History: v1.History{Created: created, CreatedBy: "make release"},
	})
	if err != nil {
		return nil, err
	}
	config, err := img.ConfigFile()
	if err != nil {
		return nil, err
	}
	config = config.DeepCopy()
	config.OS, config.Architecture, config.Created = "linux", architecture, created
	config.Config = v1.Config{Entrypoint: s.Entrypoint, User: s.User, WorkingDir: "/", Labels: s.Labels}
	return mutate.ConfigFile(img, config)
}

// Index is one name for images of several architectures.
func Index(images map[string]v1.Image, architectures []string) v1.ImageIndex {
	index := mutate.IndexMediaType(empty.Index, types.OCIImageIndex)
	for _, arch := range architectures {
		index = mutate.AppendManifests(index, mutate.IndexAddendum{
			Add:        images[arch],
			Descriptor: v1.Descriptor{Platform: &v1.Platform{OS: "linux", Architecture: arch}},
		})
	}
	return index
}

// Archive writes an index as an OCI archive under a name, for skopeo, ctr, podman and others.
func Archive(file, name string, index v1.ImageIndex, at time.Time) error {
	dir, err := os.MkdirTemp("", "image-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	path, err := layout.Write(dir, empty.Index)
	if err != nil {
		return err
	}
	if err := path.AppendIndex(index, layout.WithAnnotations(map[string]string{
		"io.containerd.image.name": name, "org.opencontainers.image.ref.name": name,
	})); err != nil {
		return err
	}
	var files []archive.File
	err = filepath.WalkDir(dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		rel, err := filepath.Rel(dir, path)
		if err != nil {
			return err
		}
		data, err := os.ReadFile(path)
		files = append(files, archive.File{Name: filepath.ToSlash(rel), Data: data})
		return err
	})
	if err != nil {
		return err
	}
	out, err := os.Create(file)
	if err != nil {
		return err
	}
	if err := archive.Tar(out, files, at); err != nil {
		out.Close()
		return err
	}
	return out.Close()
}
