// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// newDemo finds the source tree.
func newDemo() (*demo, error) {
	source, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	for ; ; source = filepath.Dir(source) {
		if _, err := os.Stat(filepath.Join(source, "hack", "devcluster", "devcluster")); err == nil {
			return &demo{ui: newUI(), source: source}, nil
		}
		if source == filepath.Dir(source) {
			return nil, errors.New("run it in Fairway's source tree, with `make demo`")
		}
	}
}

func (d *demo) path(parts ...string) string {
	return filepath.Join(append([]string{d.source}, parts...)...)
}

// devclusterHome is where the dev cluster keeps what it built and what runs. It says so by the place of its kubeconfig.
func (d *demo) devclusterHome() string {
	if d.kubeconfig == "" {
		return "~/.cache/fairway/devcluster"
	}
	return filepath.Dir(d.kubeconfig)
}

func (d *demo) exec(ctx context.Context, name string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Dir = d.source
	cmd.Env = os.Environ()
	if d.kubeconfig != "" {
		cmd.Env = append(cmd.Env, "KUBECONFIG="+d.kubeconfig)
	}
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	return cmd
}

// progress runs a program that takes a while, shows its output as it comes, and returns it.
func (d *demo) progress(ctx context.Context, name string, args ...string) (string, error) {
	cmd := d.exec(ctx, name, args...)
	var all bytes.Buffer
	r, w := io.Pipe()
	cmd.Stdout = io.MultiWriter(w, &all)
	cmd.Stderr = cmd.Stdout
	shown := make(chan struct{})
	go func() {
		defer close(shown)
		d.ui.stream(r)
		_, _ = io.Copy(io.Discard, r) // after a line that is too long
	}()
	err := cmd.Run()
	_ = w.Close()
	<-shown
	if err != nil {
		return all.String(), fmt.Errorf("%s %s: %w", filepath.Base(name), strings.Join(args, " "), err)
	}
	return all.String(), nil
}

// capture runs a program and returns what it prints.
func (d *demo) capture(ctx context.Context, name string, args ...string) (string, error) {
	cmd := d.exec(ctx, name, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("%s %s: %w: %s", filepath.Base(name), strings.Join(args, " "), err,
			strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

func (d *demo) kubectl(ctx context.Context, args ...string) (string, error) {
	return d.capture(ctx, d.kubectlPath, args...)
}

// shown runs kubectl, and shows command and output.
func (d *demo) shown(ctx context.Context, args ...string) error {
	d.ui.command("kubectl " + quote(args))
	out, err := d.kubectl(ctx, args...)
	d.ui.output(out)
	return err
}

// apply applies a manifest of the samples.
func (d *demo) apply(ctx context.Context, file string) error {
	return d.shown(ctx, "apply", "-f", filepath.Join("config/samples/bookshop", file))
}

// fromShop runs the test tool in the pod of shop.
func (d *demo) fromShop(ctx context.Context, show bool, args ...string) (string, error) {
	return d.tool(ctx, "shop", show, args...)
}

// from runs the test tool in the pod of an application, and shows what it prints.
func (d *demo) from(ctx context.Context, app string, args ...string) (string, error) {
	out, err := d.tool(ctx, app, true, args...)
	if err == nil {
		d.ui.output(out)
	}
	return out, err
}

func (d *demo) tool(ctx context.Context, app string, show bool, args ...string) (string, error) {
	args = append([]string{"exec", "-n", namespace, "deploy/" + app, "--", "/tool"}, args...)
	if show {
		d.ui.command("kubectl " + quote(args))
	}
	return d.kubectl(ctx, args...)
}

// quote makes a line that a shell takes apart again.
func quote(args []string) string {
	out := make([]string, 0, len(args))
	for _, a := range args {
		if strings.ContainsAny(a, " '\"$*?[]{}()<>|&;\\") {
			a = "'" + strings.ReplaceAll(a, "'", `'\''`) + "'"
		}
		out = append(out, a)
	}
	return strings.Join(out, " ")
}

// count is how often a kind of answer came.
type count struct {
	n    int
	name string
}

// counts reads what `tool get -n` prints: "COUNT STATUS NAME" a line.
func counts(out string) ([]count, error) {
	var all []count
	for line := range strings.Lines(out) {
		number, name, _ := strings.Cut(strings.TrimSpace(line), " ")
		n, err := strconv.Atoi(number)
		if err != nil {
			return nil, fmt.Errorf("unexpected line %q", line)
		}
		all = append(all, count{n, short(name)})
	}
	if len(all) == 0 {
		return nil, errors.New("no answers")
	}
	return all, nil
}

// unanswered begins the label of a request that got no answer.
const unanswered = "no answer: "

// short makes a label of a client's error, as in `error Get "http://stock/": context deadline exceeded (Client.Timeout
// …)`.
func short(name string) string {
	text, failed := strings.CutPrefix(name, "error ")
	if !failed {
		return name
	}
	if i := strings.LastIndex(text, `": `); i >= 0 {
		text = text[i+3:]
	}
	if i := strings.IndexByte(text, '('); i > 0 {
		text = text[:i]
	}
	if i := strings.LastIndex(text, ": "); i >= 0 {
		text = text[i+2:]
	}
	return unanswered + strings.TrimSpace(text)
}

// until asks again until the condition holds. What the last attempt said is part of the error.
func until(ctx context.Context, limit time.Duration, what string, condition func() error) error {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for {
		err := condition()
		if err == nil {
			return nil
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return fmt.Errorf("%s did not come within %s: %w", what, limit, err)
		}
	}
}
