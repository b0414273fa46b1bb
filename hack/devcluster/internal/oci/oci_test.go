// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package oci

import (
	"archive/tar"
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-containerregistry/pkg/v1/validate"
)

func TestCompleteName(t *testing.T) {
	for in, want := range map[string]string{
		"envoyproxy/envoy:distroless-v1.40.0": "docker.io/envoyproxy/envoy:distroless-v1.40.0",
		"busybox":                             "docker.io/library/busybox:latest",
		"fairway.dev/fairway:v0.1.0":          "fairway.dev/fairway:v0.1.0",
	} {
		if got, err := CompleteName(in); err != nil || got != want {
			t.Errorf("%s: got %s, %v", in, got, err)
		}
	}
	if _, err := CompleteName("Not A Name"); err == nil {
		t.Error("a bad name passed")
	}
}

func newStore(t *testing.T) *Store {
	t.Helper()
	s, err := OpenStore(filepath.Join(t.TempDir(), "images"))
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// example is an image of two layers, of which the second comes from the file.
func example(file string) Image {
	return Image{
		Name: "example:1", User: "65532", Entrypoint: []string{"/bin/program"},
		Layers: []Layer{
			{{Path: "/etc/passwd", Data: []byte("x")}, {Path: "/tmp/"}},
			{{Path: "/bin/program", Source: file, Mode: 0o755}},
		},
	}
}

func put(t *testing.T, s *Store, i Image) (name, digest string) {
	t.Helper()
	name, err := s.Put(i)
	if err != nil {
		t.Fatal(err)
	}
	if digest, err = s.Digest(name); err != nil {
		t.Fatal(err)
	}
	return name, digest
}

func TestPutIsReproducible(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	if err := os.WriteFile(file, []byte("v1"), 0o600); err != nil {
		t.Fatal(err)
	}
	_, one := put(t, newStore(t), example(file))
	s := newStore(t)
	_, two := put(t, s, example(file))
	if one != two {
		t.Errorf("the same files made %s and %s", one, two)
	}
	if _, again := put(t, s, example(file)); again != one {
		t.Errorf("from the remembered layer: %s", again)
	}
	if err := os.WriteFile(file, []byte("version 2"), 0o600); err != nil {
		t.Fatal(err)
	}
	name, changed := put(t, s, example(file))
	if changed == one {
		t.Error("a changed file made the same image")
	}
	names, err := s.names()
	if err != nil || len(names) != 1 || names[0] != name {
		t.Errorf("got %v, %v", names, err)
	}
}

func TestPutMakesValidImages(t *testing.T) {
	s := newStore(t)
	name, _ := put(t, s, example(os.Args[0]))
	d, err := s.descriptor(name)
	if err != nil {
		t.Fatal(err)
	}
	img, err := s.path.Image(d.Digest)
	if err != nil {
		t.Fatal(err)
	}
	// Fast, because the full check takes every layer for a compressed one.
	if err := validate.Image(img, validate.Fast); err != nil {
		t.Error(err)
	}
	layers, err := img.Layers()
	if err != nil {
		t.Fatal(err)
	}
	for i, l := range layers {
		digest, _ := l.Digest()
		data, err := os.ReadFile(s.blobPath(digest.Hex))
		if sum := sha256.Sum256(data); err != nil || hex.EncodeToString(sum[:]) != digest.Hex {
			t.Errorf("layer %d is not what its digest says: %v", i, err)
		}
	}
	config, err := img.ConfigFile()
	if err != nil || config.Config.User != "65532" {
		t.Errorf("got %+v, %v", config, err)
	}
}

func exported(t *testing.T, s *Store, name string, have map[string]bool) map[string]bool {
	t.Helper()
	var b bytes.Buffer
	if err := s.Export(&b, []string{name}, have); err != nil {
		t.Fatal(err)
	}
	out := map[string]bool{}
	for r := tar.NewReader(&b); ; {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		out[h.Name] = true
	}
}

func TestExportLeavesOutWhatIsThere(t *testing.T) {
	s := newStore(t)
	name, digest := put(t, s, example(os.Args[0]))
	all := exported(t, s, name, nil)
	if len(all) != 6 || !all["index.json"] || !all["oci-layout"] { // two layers, config, manifest
		t.Errorf("got %v", all)
	}
	some := exported(t, s, name, map[string]bool{digest: true})
	if len(some) != 5 || some["blobs/"+strings.Replace(digest, ":", "/", 1)] {
		t.Errorf("got %v", some)
	}
	if err := s.Export(io.Discard, []string{"absent:1"}, nil); err == nil {
		t.Error("an image that is not there was exported")
	}
}

func TestCollectKeepsWhatIsUsed(t *testing.T) {
	file := filepath.Join(t.TempDir(), "program")
	s := newStore(t)
	for _, v := range []string{"v1", "version 2"} {
		if err := os.WriteFile(file, []byte(v), 0o600); err != nil {
			t.Fatal(err)
		}
		put(t, s, example(file))
	}
	if err := s.Collect(); err != nil {
		t.Fatal(err)
	}
	blobs, err := filepath.Glob(filepath.Join(string(s.path), "blobs", "sha256", "*"))
	if err != nil || len(blobs) != 4 {
		t.Errorf("got %v, %v", blobs, err)
	}
	put(t, s, example(file))
	exported(t, s, "docker.io/library/example:1", nil)
}

// names returns the full names of all images in the store.
func (s *Store) names() ([]string, error) {
	index, err := s.path.ImageIndex()
	if err != nil {
		return nil, err
	}
	m, err := index.IndexManifest()
	if err != nil {
		return nil, err
	}
	var out []string
	for _, d := range m.Manifests {
		out = append(out, d.Annotations[annotationRefName])
	}
	slices.Sort(out)
	return out, nil
}

func TestTags(t *testing.T) {
	s := newStore(t)
	i := example(os.Args[0])
	i.Name = "registry.example/some/image:v1"
	name, digest := put(t, s, i)
	file := filepath.Join(t.TempDir(), "image.tar")
	f, err := os.Create(file)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(s.Export(f, []string{name}, nil), f.Close()); err != nil {
		t.Fatal(err)
	}
	tags, err := Tags(file)
	if err != nil || len(tags) != 1 || tags[name] != "registry.example/some/image@"+digest {
		t.Errorf("got %v, %v", tags, err)
	}
	if _, err := Tags(os.Args[0]); err == nil {
		t.Error("a program passed for an archive of images")
	}
}
