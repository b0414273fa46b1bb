// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/google/go-containerregistry/pkg/name"
	v1 "github.com/google/go-containerregistry/pkg/v1"
)

// Digest returns the digest of the manifest of the image of that full name.
func (s *Store) Digest(name string) (string, error) {
	d, err := s.descriptor(name)
	return d.Digest.String(), err
}

func (s *Store) descriptor(name string) (v1.Descriptor, error) {
	index, err := s.path.ImageIndex()
	if err != nil {
		return v1.Descriptor{}, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return v1.Descriptor{}, err
	}
	for _, d := range m.Manifests {
		if d.Annotations[annotationRefName] == name {
			return d, nil
		}
	}
	return v1.Descriptor{}, fmt.Errorf("there is no image %s: `images` builds those of the working tree", name)
}

// Export writes the named images as an OCI archive, without the blobs whose digest is in have: containerd takes those
// from its own content store.
func (s *Store) Export(w io.Writer, names []string, have map[string]bool) error {
	index := v1.IndexManifest{SchemaVersion: 2, MediaType: "application/vnd.oci.image.index.v1+json"}
	t := tar.NewWriter(w)
	written := map[string]bool{}
	for _, name := range names {
		d, err := s.descriptor(name)
		if err != nil {
			return err
		}
		index.Manifests = append(index.Manifests, d)
		img, err := s.path.Image(d.Digest)
		if err != nil {
			return err
		}
		m, err := img.Manifest()
		if err != nil {
			return err
		}
		for _, b := range append(m.Layers, m.Config, d) {
			if digest := b.Digest.String(); !have[digest] && !written[digest] {
				written[digest] = true
				if err := s.exportBlob(t, b.Digest); err != nil {
					return err
				}
			}
		}
	}
	data, err := json.Marshal(index)
	if err != nil {
		return err
	}
	if err := exportFile(t, "oci-layout", []byte(`{"imageLayoutVersion":"1.0.0"}`)); err != nil {
		return err
	}
	if err := exportFile(t, "index.json", data); err != nil {
		return err
	}
	return t.Close()
}

func exportFile(t *tar.Writer, name string, data []byte) error {
	if err := t.WriteHeader(&tar.Header{
		Typeflag: tar.TypeReg, Name: name, Mode: 0o644,
		Size: int64(len(data)),
	}); err != nil {
		return err
	}
	_, err := t.Write(data)
	return err
}

func (s *Store) exportBlob(t *tar.Writer, h v1.Hash) error {
	f, err := os.Open(filepath.Join(string(s.path), "blobs", h.Algorithm, h.Hex))
	if err != nil {
		return err
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return err
	}
	name := "blobs/" + h.Algorithm + "/" + h.Hex
	if err := t.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o444, Size: info.Size()}); err != nil {
		return err
	}
	_, err = io.Copy(t, f)
	return err
}

// Tags are the images that an OCI archive names for containerd, and under what name each is known by its digest. An
// archive of Docker has none.
func Tags(path string) (map[string]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	t := tar.NewReader(f)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("%s is no archive of images: %w", path, err)
		}
		if h.Name != "index.json" {
			continue
		}
		index, err := v1.ParseIndexManifest(t)
		if err != nil {
			return nil, fmt.Errorf("%s: index.json: %w", path, err)
		}
		out := map[string]string{}
		for _, d := range index.Manifests {
			tag, err := name.NewTag(d.Annotations[annotationContainerd], name.StrictValidation)
			if err == nil {
				out[tag.Name()] = tag.Context().Digest(d.Digest.String()).Name()
			}
		}
		return out, nil
	}
}
