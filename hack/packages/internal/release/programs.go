// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"debug/buildinfo"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"runtime/debug"
	"slices"
	"strings"
	"time"

	v1 "github.com/google/go-containerregistry/pkg/v1"

	"github.com/fairway-mesh/fairway/hack/packages/internal/archive"
	"github.com/fairway-mesh/fairway/hack/packages/internal/bundle"
	"github.com/fairway-mesh/fairway/hack/packages/internal/image"
	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// platform that programs are built for.
type platform struct{ os, arch string }

func (p platform) String() string { return p.os + "_" + p.arch }

// programs of a platform. CNI is the plugin, which Linux alone has.
type programs struct {
	fairway, cni []byte
	info         map[string]*debug.BuildInfo
}

// allPlatforms of a release that is published.
var allPlatforms = []platform{
	{linux, "amd64"},
	{linux, "arm64"},
	{"darwin", "amd64"},
	{"darwin", "arm64"},
	{"windows", "amd64"},
	{"windows", "arm64"},
}

// linux is what images are for.
const linux = "linux"

// choose platforms by name, as in linux/amd64; no name chooses all.
func choose(names []string) ([]platform, error) {
	if len(names) == 0 {
		return allPlatforms, nil
	}
	var out []platform
	for _, p := range allPlatforms {
		if slices.Contains(names, p.os+"/"+p.arch) {
			out = append(out, p)
		}
	}
	switch {
	case len(out) != len(names):
		return nil, fmt.Errorf("platforms %s: each must be one of linux, darwin and windows, on amd64 or arm64, as in "+
			"linux/amd64", strings.Join(names, ","))
	case out[0].os != linux:
		return nil, fmt.Errorf("platforms %s: one must be of Linux, which images are for", strings.Join(names, ","))
	}
	return out, nil
}

// build makes the programs of a platform with the flags of the environment, which make sets as it does for tests.
func (w *writer) build(p platform) (out programs, err error) {
	if w.programs != nil {
		return w.programs(p)
	}
	dir, err := os.MkdirTemp("", "programs-")
	if err != nil {
		return out, err
	}
	defer os.RemoveAll(dir)
	out.info = map[string]*debug.BuildInfo{}
	one := func(name, pkg string) ([]byte, error) {
		file := filepath.Join(dir, name)
		cmd := exec.Command("go", "build", "-buildvcs=auto", "-o", file, pkg)
		cmd.Dir, cmd.Stderr = w.Root, w.Log
		cmd.Env = append(os.Environ(), "GOOS="+p.os, "GOARCH="+p.arch, "CGO_ENABLED=0", "GOAMD64=v1", "GOARM64=v8.0")
		if err := cmd.Run(); err != nil {
			return nil, fmt.Errorf("build %s for %s: %w", pkg, p, err)
		}
		info, err := buildinfo.ReadFile(file)
		if err != nil {
			return nil, err
		}
		if err := stamped(info, w.commit); err != nil && !w.AllowDirty {
			return nil, err
		}
		out.info["/"+name] = info
		return os.ReadFile(file)
	}
	if out.fairway, err = one("fairway", "."); err != nil || p.os != linux {
		return out, err
	}
	out.cni, err = one("fairway-cni", "./internal/agent/cni/fairway-cni")
	return out, err
}

// stamped checks that a program knows the commit that it is of. Go is silent where it finds no repository.
func stamped(info *debug.BuildInfo, commit string) error {
	for _, s := range info.Settings {
		if s.Key == "vcs.revision" && s.Value == commit {
			return nil
		}
	}
	return fmt.Errorf("go did not write commit %s into %s, which it does in a clone with a folder .git and not in a "+
		"worktree of git: make the release in a clone, or set ALLOW_DIRTY=1 for a trial", commit, info.Path)
}

// name of an image where it will be, without tag; without a registry that of config/default.
func (w *writer) name(image string) string {
	if w.Registry == "" {
		return "fairway.dev/" + image
	}
	return w.Registry + "/" + image
}

func (w *writer) labels() map[string]string {
	return map[string]string{
		"org.opencontainers.image.source":   "https://github.com/fairway-mesh/fairway",
		"org.opencontainers.image.version":  w.Version,
		"org.opencontainers.image.revision": w.commit,
		"org.opencontainers.image.licenses": "Apache-2.0",
	}
}

// images makes the image of operator and agents, and has all manifests name it by digest if a registry is named.
func (w *writer) images() error {
	images := map[string]v1.Image{}
	var architectures []string
	for _, on := range w.platforms {
		if on.os != linux {
			continue
		}
		arch := on.arch
		architectures = append(architectures, arch)
		p, err := w.build(on)
		if err != nil {
			return err
		}
		img, err := image.Build(image.Spec{
			Files: []archive.File{
				{Name: "fairway", Data: p.fairway, Mode: 0o755}, {Name: "fairway-cni", Data: p.cni, Mode: 0o755},
			},
			Entrypoint: []string{"/fairway"}, User: "65532", Labels: w.labels(), Created: w.time,
		}, arch)
		if err != nil {
			return err
		}
		images[arch] = img
		digest, err := img.Digest()
		if err != nil {
			return err
		}
		sbom, err := image.SBOM(w.name("fairway"), digest.String(), p.info, w.time)
		if err != nil {
			return err
		}
		if err := w.write("images/fairway-"+w.number+"-linux-"+arch+".spdx.json", sbom); err != nil {
			return err
		}
		if err := w.archive(on, p.fairway); err != nil {
			return err
		}
	}
	named, err := w.put("fairway", image.Index(images, architectures))
	if err != nil || w.Registry == "" {
		return err
	}
	return w.src.SetImage(named)
}

// bundleImage is what a catalogue refers to: the bundle's files. It runs nowhere, so one does for all architectures.
func (w *writer) bundleImage(src *source.Source, files map[string][]byte) (named string, err error) {
	labels := w.labels()
	own, err := bundle.Labels(src)
	if err != nil {
		return "", err
	}
	maps.Copy(labels, own)
	content := map[string][]byte{}
	for name, data := range files {
		if name != "bundle.Dockerfile" {
			content[name] = data
		}
	}
	img, err := image.Build(image.Spec{Files: archive.Files("", content), Labels: labels, Created: w.time}, "amd64")
	if err != nil {
		return "", err
	}
	return w.put("fairway-bundle", image.Index(map[string]v1.Image{"amd64": img}, []string{"amd64"}))
}

// put writes an image and says how to name it: by digest where a registry is known, and by version otherwise.
func (w *writer) put(name string, index v1.ImageIndex) (string, error) {
	digest, err := index.Digest()
	if err != nil {
		return "", err
	}
	tagged := w.name(name) + ":" + w.Version
	file := filepath.Join(w.Out, "images", name+"-"+w.number+".oci.tar")
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		return "", err
	}
	if err := image.Archive(file, tagged, index, w.time); err != nil {
		return "", err
	}
	fmt.Fprintf(w.Log, "release: %s is %s\n", tagged, digest)
	if w.Registry == "" {
		return tagged, nil
	}
	return w.name(name) + "@" + digest.String(), nil
}

// commands are archives of the user's commands; those of Linux are there, made with its images.
func (w *writer) commands() error {
	for _, p := range w.platforms {
		if p.os == linux {
			continue
		}
		built, err := w.build(p)
		if err != nil {
			return err
		}
		if err := w.archive(p, built.fairway); err != nil {
			return err
		}
	}
	return nil
}

// makeManual makes the pages of the manual, which are the same for all platforms.
func (w *writer) makeManual() (err error) {
	if w.manual != nil {
		w.pages, err = w.manual()
		return err
	}
	dir, err := os.MkdirTemp("", "manual-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	cmd := exec.Command("go", "run", "./hack/man", "-out", dir, "-date", w.time.Format(time.RFC3339))
	cmd.Dir, cmd.Stderr = w.Root, w.Log
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("make the manual: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	w.pages = map[string][]byte{}
	for _, e := range entries {
		if w.pages[e.Name()], err = os.ReadFile(filepath.Join(dir, e.Name())); err != nil {
			return err
		}
	}
	return nil
}

// archive of the user's commands, also under the name by which kubectl finds them.
func (w *writer) archive(p platform, program []byte) error {
	license, err := w.license()
	if err != nil {
		return err
	}
	name := "fairway_" + w.number + "_" + p.String()
	if p.os == "windows" {
		b, err := archive.Zip([]archive.File{
			{Name: "LICENSE", Data: license},
			{Name: "fairway.exe", Data: program, Mode: 0o755},
			{Name: "kubectl-fairway.exe", Data: program, Mode: 0o755},
		}, w.time)
		if err != nil {
			return err
		}
		return w.write(name+".zip", b)
	}
	complete, err := os.ReadFile(filepath.Join(w.Root, "hack", "kubectl_complete-fairway"))
	if err != nil {
		return err
	}
	b, err := archive.TarGz(append([]archive.File{
		{Name: "LICENSE", Data: license},
		{Name: "fairway", Data: program, Mode: 0o755},
		{Name: "kubectl-fairway", Link: "fairway"},
		{Name: "kubectl_complete-fairway", Data: complete, Mode: 0o755},
	}, archive.Files("man/man1", w.pages)...), w.time)
	if err != nil {
		return err
	}
	return w.write(name+".tar.gz", b)
}
