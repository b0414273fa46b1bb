// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"testing"
	"time"

	"helm.sh/helm/v4/pkg/chart/v2/loader"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

const root = "../../../.."

// repository is a clone with what a release is made of, but for programs.
func repository(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"config", "changelogs"} {
		if err := os.CopyFS(filepath.Join(dir, name), os.DirFS(filepath.Join(root, name))); err != nil {
			t.Fatal(err)
		}
	}
	license, err := os.ReadFile(filepath.Join(root, "LICENSE"))
	if err != nil {
		t.Fatal(err)
	}
	put(t, dir, "LICENSE", string(license))
	if err := os.Mkdir(filepath.Join(dir, "hack"), 0o755); err != nil {
		t.Fatal(err)
	}
	put(t, dir, "hack/kubectl_complete-fairway", read(t, root, "hack", "kubectl_complete-fairway"))
	// Of nobody's settings but the test's.
	t.Setenv("GIT_CONFIG_GLOBAL", "/dev/null")
	t.Setenv("GIT_CONFIG_SYSTEM", "/dev/null")
	t.Setenv("GIT_COMMITTER_DATE", "1700000000 +0000")
	t.Setenv("SOURCE_DATE_EPOCH", "")
	for _, args := range [][]string{
		{"init", "-q"},
		{"add", "-A"},
		{"-c", "user.name=t", "-c", "user.email=t@example.org", "commit", "-q", "-m", "all"},
	} {
		if _, err := git(dir, args...); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func put(t *testing.T, dir, name, content string) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o644); err != nil {
		t.Fatal(err)
	}
}

func options(dir, out string) Options {
	return Options{
		Root: dir, Out: out, Version: "v0.1.0", Log: io.Discard,
		manual: func() (map[string][]byte, error) {
			return map[string][]byte{"fairway.1": []byte("page"), "fairway-status.1": []byte("page")}, nil
		},
		programs: func(p platform) (programs, error) {
			return programs{
				fairway: []byte("fairway of " + p.String()), cni: []byte("cni of " + p.String()),
				info: map[string]*debug.BuildInfo{"/fairway": {GoVersion: "go1.26.8", Path: "fairway"}},
			}, nil
		},
	}
}

func read(t *testing.T, elem ...string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(elem...))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestRelease makes a whole release, but for compiling, twice: all is there, and the bytes are the same.
func TestRelease(t *testing.T) {
	dir := repository(t)
	var all []string
	out := filepath.Join(t.TempDir(), "dist")
	for range 2 { // the second takes the place of the first
		o := options(dir, out)
		o.Registry = "registry.example/mesh"
		if err := Write(o); err != nil {
			t.Fatal(err)
		}
		all = append(all, read(t, out, sums))
	}
	if all[0] != all[1] {
		t.Errorf("two runs differ:\n%s\n%s", all[0], all[1])
	}
	var names []string
	for line := range strings.Lines(all[0]) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		if got := fmt.Sprintf("%x", sha256.Sum256([]byte(read(t, out, name)))); got != sum {
			t.Errorf("%s has another sum", name)
		}
		names = append(names, name)
	}
	want := []string{
		"agents-before-1.36.yaml", "catalog/fairway/catalog.yaml", "crds.yaml", "fairway-0.1.0.tgz",
		"fairway-bundle-0.1.0.tgz",
		"fairway_0.1.0_darwin_amd64.tar.gz", "fairway_0.1.0_darwin_arm64.tar.gz", "fairway_0.1.0_linux_amd64.tar.gz",
		"fairway_0.1.0_linux_arm64.tar.gz", "fairway_0.1.0_windows_amd64.zip", "fairway_0.1.0_windows_arm64.zip",
		"images/fairway-0.1.0-linux-amd64.spdx.json", "images/fairway-0.1.0-linux-arm64.spdx.json",
		"images/fairway-0.1.0.oci.tar", "images/fairway-bundle-0.1.0.oci.tar", "install.yaml", "mesh.yaml", "notes.md",
	}
	if !slices.Equal(names, want) {
		t.Errorf("got %v", names)
	}
	named(t, out)
	archived(t, filepath.Join(out, "fairway_0.1.0_linux_amd64.tar.gz"))
}

// archived checks what is in an archive of the user's commands.
func archived(t *testing.T, file string) {
	t.Helper()
	zip, err := gzip.NewReader(strings.NewReader(read(t, file)))
	if err != nil {
		t.Fatal(err)
	}
	got := map[string]int64{}
	for in := tar.NewReader(zip); ; {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			t.Fatal(err)
		}
		got[h.Name] = h.Mode
	}
	for name, mode := range map[string]int64{
		"LICENSE": 0o644, "fairway": 0o755, "kubectl_complete-fairway": 0o755, "man/man1/fairway-status.1": 0o644,
	} {
		if got[name] != mode {
			t.Errorf("%s has mode %o, want %o", name, got[name], mode)
		}
	}
}

// named checks that manifests, chart, bundle and catalogue name one image, by digest.
func named(t *testing.T, out string) {
	t.Helper()
	objects, err := source.Parse([]byte(read(t, out, "install.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	image, err := (&source.Source{Objects: objects}).Image()
	if err != nil {
		t.Fatal(err)
	}
	digest, ok := strings.CutPrefix(image, "registry.example/mesh/fairway@")
	if !ok || !strings.Contains(read(t, out, "images/fairway-0.1.0.oci.tar"), digest) {
		t.Errorf("install.yaml names %s", image)
	}
	text := read(t, out, "install.yaml")
	if strings.Count(text, image) != 2 || strings.Contains(text, "fairway.dev/fairway:") {
		t.Error("operator and agents don't run the same image")
	}
	catalog := read(t, out, "catalog/fairway/catalog.yaml")
	if !strings.Contains(catalog, image) ||
		!strings.Contains(catalog, "image: registry.example/mesh/fairway-bundle@sha256:") {
		t.Error("the catalogue doesn't name the images")
	}
	c, err := loader.Load(filepath.Join(out, "fairway-0.1.0.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	values, _ := c.Values["image"].(map[string]any)
	if c.Name() != "fairway" || values["digest"] != digest || values["repository"] != "registry.example/mesh/fairway" {
		t.Errorf("the chart %s has the image %v", c.Name(), values)
	}
}

// TestWithoutRegistry: manifests are what config/default says.
func TestWithoutRegistry(t *testing.T) {
	dir, out := repository(t), filepath.Join(t.TempDir(), "dist")
	if err := Write(options(dir, out)); err != nil {
		t.Fatal(err)
	}
	want, err := source.Render(filepath.Join(dir, "config", "default"))
	if err != nil {
		t.Fatal(err)
	}
	printed, err := source.Print(want)
	if err != nil {
		t.Fatal(err)
	}
	if read(t, out, "install.yaml") != string(printed) {
		t.Error("install.yaml is not config/default")
	}
	if !strings.Contains(read(t, out, "catalog/fairway/catalog.yaml"), "image: fairway.dev/fairway-bundle:v0.1.0") {
		t.Error("the catalogue doesn't name the bundle")
	}
}

// TestDisconnected: with Envoy's image named by digest, every manifest names all images so, and the catalogue has the
// version of the one before as well.
func TestDisconnected(t *testing.T) {
	dir, out := repository(t), filepath.Join(t.TempDir(), "dist")
	former := "schema: olm.bundle\npackage: fairway\nname: fairway.v0.0.9\nproperties:\n" +
		"- {type: olm.package, value: {packageName: fairway, version: 0.0.9}}\n"
	catalog := filepath.Join(t.TempDir(), "catalog.yaml")
	if err := os.WriteFile(catalog, []byte(former), 0o600); err != nil {
		t.Fatal(err)
	}
	o := options(dir, out)
	o.Registry, o.Catalog = "registry.example/mesh", catalog
	o.Envoy = "registry.example/envoy@sha256:" + strings.Repeat("0a", 32)
	if err := Write(o); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"install.yaml": read(t, out, "install.yaml"), "the catalogue": read(t, out, "catalog/fairway/catalog.yaml"),
	} {
		if !strings.Contains(text, o.Envoy) || strings.Contains(text, "envoyproxy/envoy:") {
			t.Errorf("%s has another Envoy", name)
		}
	}
	if got := read(t, out, "catalog/fairway/catalog.yaml"); !strings.Contains(got, "replaces: fairway.v0.0.9") ||
		!strings.Contains(got, `features.operators.openshift.io/disconnected: "true"`) {
		t.Error("the version before is not in the catalogue, or it says that there can be no mirror")
	}
	c, err := loader.Load(filepath.Join(out, "fairway-0.1.0.tgz"))
	if err != nil {
		t.Fatal(err)
	}
	envoy, _ := c.Values["envoyImage"].(map[string]any)
	if fmt.Sprintf("%v@%v", envoy["repository"], envoy["digest"]) != o.Envoy {
		t.Errorf("the chart has the Envoy %v", envoy)
	}
	o.Envoy = "envoyproxy/envoy:distroless"
	if err := Write(o); err == nil || !strings.Contains(err.Error(), "by digest") {
		t.Errorf("an Envoy by its tag: %v", err)
	}
}

// TestRefusals: what can't be released is refused with what to do, before anything is written.
func TestRefusals(t *testing.T) {
	dir, out := repository(t), filepath.Join(t.TempDir(), "dist")
	refused := func(o Options, want string) {
		t.Helper()
		err := Write(o)
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
	o := options(dir, out)
	o.Version = "v0.2.0"
	refused(o, "the tree is v0.1.0")
	put(t, dir, "new", "x")
	o = options(dir, out)
	refused(o, "ALLOW_DIRTY=1")
	if _, err := os.Stat(out); err == nil {
		t.Error("something was written")
	}
	o.AllowDirty = true
	if err := Write(o); err != nil {
		t.Error(err)
	}
	mine := t.TempDir()
	put(t, mine, "mine", "x")
	o.Out = mine
	refused(o, "DIST=")
	if read(t, mine, "mine") != "x" {
		t.Error("a file of the user's is gone")
	}
}

// TestTime is the commit's, or what SOURCE_DATE_EPOCH says.
func TestTime(t *testing.T) {
	dir := repository(t)
	got, err := readTree(dir, false)
	if err != nil || !got.time.Equal(time.Unix(1_700_000_000, 0)) || len(got.commit) != 40 {
		t.Errorf("got %+v, %v", got, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "1600000000")
	if got, err = readTree(dir, false); err != nil || !got.time.Equal(time.Unix(1_600_000_000, 0)) {
		t.Errorf("got %+v, %v", got, err)
	}
	t.Setenv("SOURCE_DATE_EPOCH", "yesterday")
	if _, err = readTree(dir, false); err == nil || !strings.Contains(err.Error(), "SOURCE_DATE_EPOCH") {
		t.Errorf("got %v", err)
	}
	if _, err = readTree(t.TempDir(), false); err == nil || !strings.Contains(err.Error(), "clone") {
		t.Errorf("without a clone: %v", err)
	}
}

// TestStamped: a program that doesn't know its commit is no release.
func TestStamped(t *testing.T) {
	info := &debug.BuildInfo{Path: "fairway", Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: "abc"}}}
	if err := stamped(info, "abc"); err != nil {
		t.Error(err)
	}
	for _, info := range []*debug.BuildInfo{info, {Path: "fairway"}} {
		if err := stamped(info, "def"); err == nil || !strings.Contains(err.Error(), "in a clone") {
			t.Errorf("got %v", err)
		}
	}
}

func TestNotes(t *testing.T) {
	dir := t.TempDir()
	put(t, dir, "b.md", "---\nkind: fix\n---\nIt no longer\nfails.\n\nRestart it once.\n")
	put(t, dir, "a.md", "---\nkind: fix\n---\nA.\n")
	put(t, dir, "c.md", "---\nkind: breaking\n---\nC.\n")
	got, err := Notes(dir, "v0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	want := "# Fairway v0.1.0\n\n## Breaking changes\n\n- C.\n\n## Fixes\n\n" +
		"- A.\n- It no longer\n  fails.\n\n  Restart it once.\n"
	if string(got) != want {
		t.Errorf("got\n%s", got)
	}
	for content, want := range map[string]string{
		"---\nkind: other\n---\nA.\n": "kind \"other\"", "A.\n": "must begin", "---\nkind: fix\n---\n\n": "says nothing",
	} {
		put(t, dir, "d.md", content)
		if _, err := Notes(dir, "v0.1.0"); err == nil || !strings.Contains(err.Error(), want) ||
			!strings.Contains(err.Error(), "d.md") {
			t.Errorf("%q: %v", content, err)
		}
	}
}

// TestFragments: those of the tree can be joined.
func TestFragments(t *testing.T) {
	got, err := Notes(filepath.Join(root, "changelogs", "unreleased"), "v0.1.0")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Contains(got, []byte("## Features")) {
		t.Error("there are no features")
	}
}

// TestPlatforms makes a trial for one platform.
func TestPlatforms(t *testing.T) {
	dir := repository(t)
	out := filepath.Join(t.TempDir(), "dist")
	o := options(dir, out)
	o.Platforms = []string{"linux/amd64"}
	if err := Write(o); err != nil {
		t.Fatal(err)
	}
	archives, err := filepath.Glob(filepath.Join(out, "fairway_*"))
	if err != nil || len(archives) != 1 {
		t.Errorf("archives of commands: %v, %v", archives, err)
	}
	for _, bad := range [][]string{{"linux/mips"}, {"linux"}, {"darwin/arm64"}, {""}, {"linux/amd64", "linux/amd64"}} {
		o.Platforms = bad
		if err := Write(o); err == nil || !strings.Contains(err.Error(), "platforms") {
			t.Errorf("%v: %v", bad, err)
		}
	}
}

// TestOrder: kubectl applies a file from its beginning, so what others need comes first.
func TestOrder(t *testing.T) {
	out := filepath.Join(t.TempDir(), "dist")
	if err := Write(options(repository(t), out)); err != nil {
		t.Fatal(err)
	}
	objects, err := source.Parse([]byte(read(t, out, "install.yaml")))
	if err != nil {
		t.Fatal(err)
	}
	seen, within := map[string]bool{}, 0
	for _, o := range objects {
		if o.Kind() == "Namespace" {
			seen[o.Name()] = true
		}
		if ns := o.Str("metadata", "namespace"); ns != "" {
			within++
			if !seen[ns] {
				t.Errorf("%s %s comes before its namespace", o.Kind(), o.Name())
			}
		}
	}
	if within == 0 {
		t.Error("nothing is in a namespace")
	}
}
