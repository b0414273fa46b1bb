// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"fmt"
	"strings"
	"time"
)

// tryPolicy applies a policy that allows nobody, and that is only tried.
func (d *demo) tryPolicy(ctx context.Context) error {
	if err := d.apply(ctx, "policy-nobody.yaml"); err != nil {
		return err
	}
	if err := d.enforcement(ctx, "DryRun", "nobody"); err != nil {
		return err
	}
	if err := d.shown(ctx, "get", "authorizationpolicies", "-n", namespace); err != nil {
		return err
	}
	d.ui.say("Nothing is refused, but the proxies log and count what would be:")
	_, err := d.from(ctx, "stock-1", "get", "-n", "5", "--no-keepalive", "http://reviews/")
	return err
}

// policies let shop read reviews, and nobody do anything else.
func (d *demo) policies(ctx context.Context) error {
	if err := d.apply(ctx, "policy-reviews.yaml"); err != nil {
		return err
	}
	if err := d.shown(ctx, "patch", "authorizationpolicy", "-n", namespace, "nobody", "--type=merge", "-p",
		`{"spec":{"dryRun":false}}`); err != nil {
		return err
	}
	start := time.Now()
	if err := d.enforcement(ctx, "Enforced", "nobody", "shop-calls-reviews", "reviews-are-read"); err != nil {
		return err
	}
	d.ui.good("enforced by all proxies concerned, %s later", time.Since(start).Round(10*time.Millisecond))
	message := `jsonpath={.status.ancestors[0].conditions[?(@.type=="Enforced")].message}{"\n"}`
	if err := d.shown(ctx, "get", "authorizationpolicy", "-n", namespace, "reviews-are-read", "-o", message); err != nil {
		return err
	}
	for _, ask := range []struct {
		from, want string
		args       []string
	}{
		{"shop", "200", []string{"http://reviews/"}},
		{"shop", "403", []string{"-X", "DELETE", "http://reviews/"}},
		{"stock-1", "403", []string{"http://reviews/"}},
	} {
		out, err := d.from(ctx, ask.from, append([]string{"get", "-n", "5", "--no-keepalive"}, ask.args...)...)
		if err != nil {
			return err
		}
		for line := range strings.Lines(out) {
			if fields := strings.Fields(line); len(fields) < 2 || fields[1] != ask.want {
				return fmt.Errorf("%s was to get %s, and got: %s", ask.from, ask.want, out)
			}
		}
	}
	return d.explain(ctx)
}

// explain has the command say why.
func (d *demo) explain(ctx context.Context) error {
	if _, err := d.capture(ctx, "make", "build"); err != nil {
		return err
	}
	args := []string{"explain", "sa/bookshop/shop", "bookshop/reviews", "--method", "DELETE"}
	d.ui.command("bin/fairway " + quote(args))
	out, err := d.capture(ctx, d.path("bin", "fairway"), args...)
	if err == nil {
		return fmt.Errorf("the command says that shop may delete reviews:\n%s", out)
	}
	if !strings.Contains(out, "reviews-are-read") {
		return fmt.Errorf("the command names no policy: %w:\n%s", err, out)
	}
	d.ui.output(out)
	return nil
}

// enforcement waits for a reason of condition Enforced.
func (d *demo) enforcement(ctx context.Context, reason string, policies ...string) error {
	for _, p := range policies {
		says := `--for=jsonpath={.status.ancestors[0].conditions[?(@.type=="Enforced")].reason}=` + reason
		_, err := d.kubectl(ctx, "wait", "-n", namespace, "authorizationpolicy/"+p, says, "--timeout=60s")
		if err != nil {
			return err
		}
	}
	return nil
}
