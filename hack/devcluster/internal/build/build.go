// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package build turns pinned tool modules into the binaries that the dev cluster runs, and gets the few prerequisites
// that are no Go programs. What is there already and was built from the same pins is left alone.
package build

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

const (
	// stillEvery is how often a long step says that it still runs.
	stillEvery = 20 * time.Second
	// soon is within how much time a step that is usually short may end without a word.
	soon = 2 * time.Second
)

// compilerGOGC lets Go's compiler trade memory for a sixth of its time.
const compilerGOGC = "400"

// majorVersion is the last part of the path of a module beyond its first version.
var majorVersion = regexp.MustCompile(`^v[0-9]+$`)

// Builder builds into Home from the tool modules of Source.
type Builder struct {
	Home topology.Home
	// Source is the top of Fairway's source tree.
	Source string
	// Out gets the progress.
	Out io.Writer
}

// Ensure builds those of the components that are missing or were built from other pins, one after the other: side by
// side they would compile what they share twice.
func (b *Builder) Ensure(ctx context.Context, components []Component) error {
	var stale []Component
	for _, c := range components {
		want, err := b.stamp(c)
		if err != nil {
			return err
		}
		if !b.current(c, want) {
			stale = append(stale, c)
		}
	}
	for i, c := range stale {
		what := fmt.Sprintf("[%d/%d] building %s", i+1, len(stale), c.Name)
		if err := b.step(what, func() error { return b.one(ctx, c) }); err != nil {
			return fmt.Errorf("building %s: %w", c.Name, err)
		}
	}
	return nil
}

// step runs f and says how long it takes, while it takes long and at the end.
func (b *Builder) step(what string, f func() error) error {
	fmt.Fprintf(b.Out, "%s ...\n", what)
	return b.follow(what, time.Now(), start(f))
}

// StepUnlessSoon is a step that says nothing where it is done soon, as Go's cache makes most builds be.
func (b *Builder) StepUnlessSoon(what string, f func() error) error {
	begin, done := time.Now(), start(f)
	select {
	case err := <-done:
		return err
	case <-time.After(soon):
		fmt.Fprintf(b.Out, "%s ...\n", what)
		return b.follow(what, begin, done)
	}
}

func start(f func() error) <-chan error {
	done := make(chan error, 1)
	go func() { done <- f() }()
	return done
}

// follow tells of a step until it is done.
func (b *Builder) follow(what string, begin time.Time, done <-chan error) error {
	elapsed := func() time.Duration { return time.Since(begin).Round(100 * time.Millisecond) }
	ticker := time.NewTicker(stillEvery)
	defer ticker.Stop()
	for {
		select {
		case err := <-done:
			if err == nil {
				fmt.Fprintf(b.Out, "%s: done in %s\n", what, elapsed())
			}
			return err
		case <-ticker.C:
			fmt.Fprintf(b.Out, "%s: still running after %s\n", what, elapsed())
		}
	}
}

// module is the folder of the component's tool module.
func (b *Builder) module(c Component) string {
	return filepath.Join(b.Source, "hack", "devcluster", "tools", c.Name)
}

// stamp is a digest of everything that decides what the component's binaries are.
func (b *Builder) stamp(c Component) (string, error) {
	h := sha256.New()
	fmt.Fprintf(h, "%s %s %+v\n", runtime.Version(), runtime.GOARCH, c)
	files, err := filepath.Glob(filepath.Join(b.module(c), "*.go"))
	if err != nil {
		return "", err
	}
	for _, f := range append(files, filepath.Join(b.module(c), "go.mod"), filepath.Join(b.module(c), "go.sum")) {
		data, err := os.ReadFile(f)
		if err != nil {
			return "", err
		}
		fmt.Fprintf(h, "%s %d\n%s", filepath.Base(f), len(data), data)
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// dir is where the component's binaries go.
func (b *Builder) dir(c Component) string {
	if c.cni {
		return b.Home.CNI()
	}
	return b.Home.Bin()
}

// built is what the go command calls the binary of a package: the last part of its path that is no major version.
func (c Component) built(pkg string) string {
	if pkg == "." {
		return c.Name
	}
	name := path.Base(pkg)
	if majorVersion.MatchString(name) {
		name = path.Base(path.Dir(pkg))
	}
	return name
}

// binaries returns the name of what each package becomes.
func (c Component) binaries() []string {
	var out []string
	for i, p := range c.packages {
		name := c.built(p)
		if i == 0 && c.rename != "" {
			name = c.rename
		}
		out = append(out, name)
	}
	return out
}

func (b *Builder) current(c Component, want string) bool {
	have, err := os.ReadFile(filepath.Join(b.Home.Stamps(), c.Name))
	if err != nil || string(have) != want {
		return false
	}
	for _, name := range append(c.binaries(), c.links...) {
		if _, err := os.Stat(filepath.Join(b.dir(c), name)); err != nil {
			return false
		}
	}
	return true
}

func (b *Builder) one(ctx context.Context, c Component) error {
	want, err := b.stamp(c)
	if err != nil {
		return err
	}
	// Built beside and renamed into place: a running cluster goes on with the old file, and none is ever half there.
	for _, d := range []string{b.dir(c), b.Home.Stamps()} {
		if err := os.MkdirAll(d, 0o755); err != nil {
			return err
		}
	}
	tmp, err := os.MkdirTemp(string(b.Home), "build-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(tmp)
	// All packages at once: while one is linked, which keeps one core busy, another compiles.
	args := []string{"build", "-trimpath", "-ldflags", strings.TrimSpace("-s -w " + c.ldFlags), "-o", tmp + "/"}
	if c.tags != "" {
		args = append(args, "-tags", c.tags)
	}
	if err := Go(ctx, b.module(c), []string{"GOFLAGS=-mod=readonly"}, append(args, c.packages...)...); err != nil {
		return err
	}
	binaries := c.binaries()
	if from := c.built(c.packages[0]); from != binaries[0] {
		if err := os.Rename(filepath.Join(tmp, from), filepath.Join(tmp, binaries[0])); err != nil {
			return err
		}
	}
	for _, l := range c.links {
		if err := os.Symlink(binaries[0], filepath.Join(tmp, l)); err != nil {
			return err
		}
	}
	for _, name := range append(binaries, c.links...) {
		if err := os.Rename(filepath.Join(tmp, name), filepath.Join(b.dir(c), name)); err != nil {
			return err
		}
	}
	return os.WriteFile(filepath.Join(b.Home.Stamps(), c.Name), []byte(want), 0o644)
}

// Go runs the go command in a folder, for static binaries. What it prints goes into the error.
func Go(ctx context.Context, dir string, env []string, args ...string) error {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(append(os.Environ(), "CGO_ENABLED=0", "GOWORK=off", "GOGC="+compilerGOGC), env...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("go %s: %w\n%s", args[0], err, out.Bytes())
	}
	return nil
}

// ToolModuleDir returns the folder of a module that a component's tool module requires, downloaded if need be.
func (b *Builder) ToolModuleDir(ctx context.Context, component, module string) (string, error) {
	return ModuleDir(ctx, b.module(Component{Name: component}), module)
}

// ModuleDir returns the folder of a module that the module in dir requires, downloaded if need be. The module in dir
// may need a later Go than the rest, which the go command then fetches.
func ModuleDir(ctx context.Context, dir, module string) (string, error) {
	cmd := exec.CommandContext(ctx, "go", "mod", "download", "-json", module)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOFLAGS=-mod=readonly", "GOWORK=off", "GOTOOLCHAIN=auto")
	out, err := cmd.Output()
	var found struct{ Dir, Error string }
	if err := errors.Join(err, json.Unmarshal(out, &found)); err != nil {
		return "", fmt.Errorf("finding module %s: %w %s", module, err, found.Error)
	}
	return found.Dir, nil
}
