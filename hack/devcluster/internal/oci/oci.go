// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package oci builds container images from files, without a daemon and without a registry, into an OCI image layout on
// disk. The same files always make the same digests, so what did not change is neither stored nor loaded again.
package oci

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"runtime"
	"slices"
	"strings"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/empty"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/match"
	"github.com/google/go-containerregistry/pkg/v1/mutate"
	"github.com/google/go-containerregistry/pkg/v1/types"
)

// Annotations of an image in a layout's index: containerd takes the name from the first, other tools from the second.
const (
	annotationContainerd = "io.containerd.image.name"
	annotationRefName    = "org.opencontainers.image.ref.name"
)

// File is one file of an image: the content of Source, or Data where Source is empty.
type File struct {
	// Path in the image, absolute. One that ends in a slash is an empty folder.
	Path string
	// Source is a file of this machine. Symbolic links are followed.
	Source string
	// Data is the content where there is no Source.
	Data []byte
	// Mode is the permission bits; zero takes those of Source, or 0644.
	Mode fs.FileMode
}

// Layer is the files of one layer. What changes together belongs together.
type Layer []File

// Image says what an image is made of.
type Image struct {
	// Name as manifests write it; the short names of Docker Hub are completed.
	Name       string
	Layers     []Layer
	Entrypoint []string
	User       string
}

// CompleteName returns the full name of an image as the CRI knows it: docker.io/ for short names, and a tag.
func CompleteName(name string) (string, error) {
	named, err := reference.ParseDockerRef(name)
	if err != nil {
		return "", fmt.Errorf("image name %q: %w", name, err)
	}
	return named.String(), nil
}

// Store is an OCI image layout.
type Store struct{ path layout.Path }

// OpenStore opens the layout in dir, made if need be.
func OpenStore(dir string) (*Store, error) {
	p, err := layout.FromPath(dir)
	if errors.Is(err, fs.ErrNotExist) {
		p, err = layout.Write(dir, empty.Index)
	}
	if err != nil {
		return nil, fmt.Errorf("image store %s: %w", dir, err)
	}
	return &Store{p}, nil
}

// Put builds an image and puts it into the store in place of the one of that name. It returns the full name.
func (s *Store) Put(i Image) (string, error) {
	name, err := CompleteName(i.Name)
	if err != nil {
		return "", err
	}
	img := mutate.ConfigMediaType(mutate.MediaType(empty.Image, types.OCIManifestSchema1), types.OCIConfigJSON)
	for _, l := range i.Layers {
		blob, err := s.layer(l)
		if err != nil {
			return "", fmt.Errorf("image %s: %w", name, err)
		}
		if img, err = mutate.AppendLayers(img, blob); err != nil {
			return "", fmt.Errorf("image %s: %w", name, err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil {
		return "", err
	}
	config.OS, config.Architecture = "linux", runtime.GOARCH
	config.Config = v1.Config{
		Entrypoint: i.Entrypoint, User: i.User, WorkingDir: "/",
		Env: []string{"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"},
	}
	if img, err = mutate.ConfigFile(img, config); err != nil {
		return "", err
	}
	return name, s.path.ReplaceImage(img, named(name),
		layout.WithAnnotations(map[string]string{annotationContainerd: name, annotationRefName: name}))
}

func named(name string) match.Matcher { return match.Annotation(annotationRefName, name) }

// Collect removes the blobs that no image needs any more, and what was remembered about them.
func (s *Store) Collect() error {
	old, err := s.path.GarbageCollect()
	if err != nil {
		return err
	}
	for _, h := range old {
		if err := s.path.RemoveBlob(h); err != nil {
			return err
		}
	}
	remembered, err := filepath.Glob(filepath.Join(string(s.path), "layers", "*"))
	if err != nil {
		return err
	}
	for _, path := range remembered {
		digest, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		if _, err := os.Stat(s.blobPath(string(digest))); errors.Is(err, fs.ErrNotExist) {
			if err := os.Remove(path); err != nil {
				return err
			}
		}
	}
	return nil
}

// blob is an uncompressed layer that lies in the store: compressing would only cost time on the way to a node.
type blob struct {
	path string
	hash v1.Hash
	size int64
}

func (b *blob) Digest() (v1.Hash, error)             { return b.hash, nil }
func (b *blob) DiffID() (v1.Hash, error)             { return b.hash, nil }
func (b *blob) Compressed() (io.ReadCloser, error)   { return os.Open(b.path) }
func (b *blob) Uncompressed() (io.ReadCloser, error) { return os.Open(b.path) }
func (b *blob) Size() (int64, error)                 { return b.size, nil }
func (b *blob) MediaType() (types.MediaType, error)  { return types.OCIUncompressedLayer, nil }

// layer returns the layer of these files, written into the store unless one of the same files is there.
func (s *Store) layer(l Layer) (v1.Layer, error) {
	key, err := fingerprint(l)
	if err != nil {
		return nil, err
	}
	known := filepath.Join(string(s.path), "layers", key)
	if digest, err := os.ReadFile(known); err == nil {
		path := s.blobPath(string(digest))
		if info, err := os.Stat(path); err == nil {
			return &blob{path: path, hash: v1.Hash{Algorithm: "sha256", Hex: string(digest)}, size: info.Size()}, nil
		}
	}
	b, err := s.writeBlob(l)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(known), 0o755); err != nil {
		return nil, err
	}
	return b, os.WriteFile(known, []byte(b.hash.Hex), 0o644)
}

// fingerprint changes whenever one of the files may have: it spares reading hundreds of megabytes that did not.
func fingerprint(l Layer) (string, error) {
	h := sha256.New()
	for _, f := range l {
		fmt.Fprintf(h, "%q %q %o %x\n", f.Path, f.Source, f.Mode, sha256.Sum256(f.Data))
		if f.Source == "" {
			continue
		}
		info, err := os.Stat(f.Source)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%d %d %o\n", info.Size(), info.ModTime().UnixNano(), info.Mode())
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

func (s *Store) blobPath(digest string) string {
	return filepath.Join(string(s.path), "blobs", "sha256", digest)
}

func (s *Store) writeBlob(l Layer) (*blob, error) {
	dir := filepath.Join(string(s.path), "blobs", "sha256")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	// Beside the blobs, not among them: what lies there is named by its digest.
	tmp, err := os.CreateTemp(string(s.path), "layer-")
	if err != nil {
		return nil, err
	}
	defer os.Remove(tmp.Name())
	h := sha256.New()
	size := &counter{}
	err = writeLayer(io.MultiWriter(tmp, h, size), l)
	if err := errors.Join(err, tmp.Close()); err != nil {
		return nil, err
	}
	hash := v1.Hash{Algorithm: "sha256", Hex: hex.EncodeToString(h.Sum(nil))}
	b := &blob{path: s.blobPath(hash.Hex), hash: hash, size: size.n}
	return b, os.Rename(tmp.Name(), b.path)
}

type counter struct{ n int64 }

func (c *counter) Write(p []byte) (int, error) {
	c.n += int64(len(p))
	return len(p), nil
}

// writeLayer writes the files as an archive that depends on nothing but paths, modes and contents.
func writeLayer(w io.Writer, l Layer) error {
	files := slices.SortedFunc(slices.Values(l), func(a, b File) int { return strings.Compare(a.Path, b.Path) })
	t := tar.NewWriter(w)
	dirs := map[string]bool{"/": true}
	for _, f := range files {
		if err := writeDirs(t, dirs, path.Dir(f.Path)); err != nil {
			return err
		}
		if strings.HasSuffix(f.Path, "/") {
			continue
		}
		if err := writeFile(t, f); err != nil {
			return fmt.Errorf("%s: %w", f.Path, err)
		}
	}
	return t.Close()
}

func writeDirs(t *tar.Writer, done map[string]bool, dir string) error {
	if done[dir] {
		return nil
	}
	if err := writeDirs(t, done, path.Dir(dir)); err != nil {
		return err
	}
	done[dir] = true
	mode := int64(0o755)
	if dir == "/tmp" {
		mode = 0o1777
	}
	return t.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir[1:] + "/", Mode: mode})
}

func writeFile(t *tar.Writer, f File) error {
	if f.Source == "" {
		if f.Mode == 0 {
			f.Mode = 0o644
		}
		if err := t.WriteHeader(header(f, int64(len(f.Data)))); err != nil {
			return err
		}
		_, err := t.Write(f.Data)
		return err
	}
	in, err := os.Open(f.Source)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	if f.Mode == 0 {
		f.Mode = info.Mode().Perm()
	}
	if err := t.WriteHeader(header(f, info.Size())); err != nil {
		return err
	}
	_, err = io.Copy(t, in)
	return err
}

func header(f File, size int64) *tar.Header {
	return &tar.Header{Typeflag: tar.TypeReg, Name: f.Path[1:], Mode: int64(f.Mode.Perm()), Size: size}
}
