// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package image

import (
	"bytes"
	"os"
	"path/filepath"
	"runtime/debug"
	"testing"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"
	"github.com/google/go-containerregistry/pkg/v1/layout"
	"github.com/google/go-containerregistry/pkg/v1/validate"

	"github.com/fairway-mesh/fairway/hack/packages/internal/archive"
)

var at = time.Unix(1_700_000_000, 0)

func index(t *testing.T) v1.ImageIndex {
	t.Helper()
	images := map[string]v1.Image{}
	for _, arch := range []string{"amd64", "arm64"} {
		img, err := Build(Spec{
			Files:      []archive.File{{Name: "fairway", Data: []byte("program for " + arch), Mode: 0o755}},
			Entrypoint: []string{"/fairway"}, User: "65532", Labels: map[string]string{"a": "b"}, Created: at,
		}, arch)
		if err != nil {
			t.Fatal(err)
		}
		images[arch] = img
	}
	return Index(images, []string{"amd64", "arm64"})
}

// TestIndex: it is a valid index, each image says its platform, and is what was asked for.
func TestIndex(t *testing.T) {
	// As others read it.
	path, err := layout.Write(t.TempDir(), index(t))
	if err != nil {
		t.Fatal(err)
	}
	x, err := path.ImageIndex()
	if err != nil {
		t.Fatal(err)
	}
	if err := validate.Index(x); err != nil {
		t.Fatal(err)
	}
	m, err := x.IndexManifest()
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Manifests) != 2 {
		t.Fatalf("%d images", len(m.Manifests))
	}
	for n, arch := range []string{"amd64", "arm64"} {
		if p := m.Manifests[n].Platform; p == nil || p.OS != "linux" || p.Architecture != arch {
			t.Errorf("image %d is for %v", n, p)
		}
		img, err := x.Image(m.Manifests[n].Digest)
		if err != nil {
			t.Fatal(err)
		}
		c, err := img.ConfigFile()
		if err != nil {
			t.Fatal(err)
		}
		if c.Architecture != arch || c.Config.User != "65532" || c.Config.Entrypoint[0] != "/fairway" ||
			c.Config.Labels["a"] != "b" || !c.Created.Equal(at) {
			t.Errorf("the configuration is %+v", c)
		}
	}
}

// TestArchive: the same files give the same digest and the same archive.
func TestArchive(t *testing.T) {
	var digests []string
	var bytesOf [][]byte
	for range 2 {
		x := index(t)
		d, err := x.Digest()
		if err != nil {
			t.Fatal(err)
		}
		file := filepath.Join(t.TempDir(), "a.tar")
		if err := Archive(file, "example/fairway:v1", x, at); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		digests, bytesOf = append(digests, d.String()), append(bytesOf, b)
	}
	if digests[0] != digests[1] || !bytes.Equal(bytesOf[0], bytesOf[1]) {
		t.Error("two runs differ")
	}
	for _, want := range []string{digests[0], "oci-layout", "example/fairway:v1"} {
		if !bytes.Contains(bytesOf[0], []byte(want)) {
			t.Errorf("the archive lacks %s", want)
		}
	}
}

// TestSBOM: it lists each module once, and what it was replaced with.
func TestSBOM(t *testing.T) {
	info := &debug.BuildInfo{
		GoVersion: "go1.26.8", Path: "example/cmd", Main: debug.Module{Path: "example", Version: "v0.1.0"},
		Deps: []*debug.Module{
			{Path: "github.com/a/b", Version: "v1.0.0"},
			{Path: "github.com/c/d", Version: "v1.0.0", Replace: &debug.Module{Path: "github.com/e/d", Version: "v1.1.0"}},
		},
	}
	programs := map[string]*debug.BuildInfo{"/one": info, "/two": info}
	b, err := SBOM("example/fairway", "sha256:12", programs, at)
	if err != nil {
		t.Fatal(err)
	}
	again, err := SBOM("example/fairway", "sha256:12", programs, at)
	if err != nil || !bytes.Equal(b, again) {
		t.Errorf("two runs differ: %v", err)
	}
	doc, err := ReadSBOM(bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	names := map[string]int{}
	ids := map[string]bool{}
	for _, p := range doc.Packages {
		names[p.PackageName+"@"+p.PackageVersion]++
		ids[string(p.PackageSPDXIdentifier)] = true
	}
	for _, want := range []string{
		"example/fairway@sha256:12", "/one@v0.1.0", "/two@v0.1.0", "stdlib@go1.26.8", "github.com/a/b@v1.0.0",
		"github.com/e/d@v1.1.0",
	} {
		if names[want] != 1 {
			t.Errorf("%s is there %d times", want, names[want])
		}
	}
	if len(names) != 6 || len(ids) != 6 {
		t.Errorf("got %v", names)
	}
	for _, r := range doc.Relationships {
		if !ids[string(r.RefB.ElementRefID)] {
			t.Errorf("%s of nothing", r.Relationship)
		}
	}
}
