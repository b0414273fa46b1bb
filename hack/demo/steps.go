// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"
)

const (
	namespace = "bookshop"
	system    = "fairway-system"
)

// nodes are the network namespaces of the dev cluster's nodes.
var nodes = []string{"node1", "node2"}

type demo struct {
	ui          *ui
	source      string
	kubeconfig  string
	kubectlPath string
	// before are the pods of the application before it joined the mesh.
	before []pod
}

func (d *demo) devcluster() string { return d.path("hack", "devcluster", "devcluster") }

func (d *demo) cluster(ctx context.Context) error {
	d.ui.say("The first time this compiles Kubernetes, which takes some minutes; after that, seconds.")
	d.ui.command("make cluster")
	if _, err := d.progress(ctx, d.devcluster(), "up"); err != nil {
		return err
	}
	if err := d.find(ctx); err != nil {
		return err
	}
	// What an earlier run left drains while the images are built.
	if _, err := d.kubectl(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--wait=false"); err != nil {
		return err
	}
	return d.shown(ctx, "get", "nodes", "-o", columns("NAME:.metadata.name",
		`ADDRESS:.status.addresses[?(@.type=="InternalIP")].address`,
		"KUBELET:.status.nodeInfo.kubeletVersion", "RUNTIME:.status.nodeInfo.containerRuntimeVersion"))
}

// found is the cluster that runs already.
func (d *demo) found(ctx context.Context) error {
	if err := d.find(ctx); err != nil {
		return err
	}
	return d.shown(ctx, "get", "nodes,mesh")
}

// find learns from the dev cluster where its kubeconfig and kubectl are.
func (d *demo) find(ctx context.Context) error {
	out, err := d.capture(ctx, d.devcluster(), "env")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "export KUBECONFIG="); ok {
			d.kubeconfig = strings.Trim(value, `"`)
		}
		if value, ok := strings.CutPrefix(strings.TrimSpace(line), "export PATH="); ok {
			d.kubectlPath = filepath.Join(strings.Trim(strings.TrimSuffix(value, `:"$PATH"`), `"`), "kubectl")
		}
	}
	if d.kubeconfig == "" || d.kubectlPath == "" {
		return fmt.Errorf("the dev cluster doesn't say where its kubeconfig and kubectl are:\n%s", out)
	}
	return nil
}

func (d *demo) deploy(ctx context.Context) error {
	targets := []string{"allow-experimental-crds", "gateway-api-crds", "deploy", "GATEWAY_API_CHANNEL=experimental"}
	d.ui.command("make images " + strings.Join(targets, " "))
	loaded, err := d.progress(ctx, d.devcluster(), "images")
	if err != nil {
		return err
	}
	if _, err := d.progress(ctx, "make", append(targets, "--no-print-directory",
		"KUBECTL="+d.kubectlPath)...); err != nil {
		return err
	}
	if err := d.shown(ctx, "apply", "-f", "config/samples/fairway_v1alpha1_mesh.yaml"); err != nil {
		return err
	}
	if strings.Contains(loaded, "fairway.dev/fairway") {
		if err := d.renew(ctx); err != nil {
			return err
		}
	}
	if _, err := d.kubectl(ctx, "wait", "mesh/default", "--for=condition=Ready", "--timeout=120s"); err != nil {
		return err
	}
	if err := d.shown(ctx, "get", "mesh,daemonset", "-n", system); err != nil {
		return err
	}
	return d.shown(ctx, "get", "pods", "-n", system, "-o", podColumns)
}

// columns is a table of its own: kubectl's wide ones are wider than a terminal.
func columns(all ...string) string { return "custom-columns=" + strings.Join(all, ",") }

// podColumns says where pods run.
var podColumns = columns("NAME:.metadata.name", "READY:.status.containerStatuses[*].ready", "NODE:.spec.nodeName",
	"ADDRESS:.status.podIP")

// renew makes pods of an earlier run use the image that was just built, which has the same name.
func (d *demo) renew(ctx context.Context) error {
	for _, workload := range []string{"deployment/fairway-operator", "daemonset/fairway-node"} {
		out, err := d.kubectl(ctx, "get", workload, "-n", system, "--ignore-not-found", "-o",
			"jsonpath={.metadata.creationTimestamp}")
		if err != nil {
			return err
		}
		made, err := time.Parse(time.RFC3339, out)
		if err != nil || made.After(d.ui.start.Add(-time.Second)) {
			continue // none, or of this run
		}
		if err := d.shown(ctx, "rollout", "restart", "-n", system, workload); err != nil {
			return err
		}
		if _, err := d.kubectl(ctx, "rollout", "status", "-n", system, workload, "--timeout=180s"); err != nil {
			return err
		}
	}
	return nil
}

func (d *demo) application(ctx context.Context) error {
	// A namespace of an earlier run may be in the mesh already, which would spoil the "before".
	if _, err := d.kubectl(ctx, "delete", "namespace", namespace, "--ignore-not-found", "--timeout=90s"); err != nil {
		return err
	}
	if err := d.apply(ctx, "bookshop.yaml"); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "wait", "-n", namespace, "deploy", "--all", "--for=condition=Available",
		"--timeout=90s"); err != nil {
		return err
	}
	var err error
	if d.before, err = d.pods(ctx); err != nil {
		return err
	}
	if err := d.shown(ctx, "get", "pods", "-n", namespace, "-o", podColumns); err != nil {
		return err
	}
	return d.shown(ctx, "get", "services", "-n", namespace)
}

func (d *demo) enrol(ctx context.Context) error {
	start := time.Now()
	if err := d.shown(ctx, "label", "namespace", namespace, "fairway.dev/mesh=enabled"); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "wait", "-n", namespace, "pods", "-l", "fairway.dev/mesh!=disabled",
		"--for=condition=fairway.dev/Captured", "--timeout=60s"); err != nil {
		return err
	}
	d.ui.good("every pod was captured within %s", time.Since(start).Round(10*time.Millisecond))
	after, err := d.pods(ctx)
	if err != nil {
		return err
	}
	d.ui.say("%-28s %-38s %s", "POD", "UID BEFORE AND AFTER", "RESTARTS BEFORE AND AFTER")
	for i, p := range after {
		if i >= len(d.before) || p.uid != d.before[i].uid || p.restarts != d.before[i].restarts {
			return fmt.Errorf("pod %s is not the one that ran before, or has restarted", p.name)
		}
		d.ui.say("%-28s %-38s %d, %d", p.name, p.uid, d.before[i].restarts, p.restarts)
	}
	d.ui.good("the same pods, no restart, no sidecar")
	return nil
}

func (d *demo) split(ctx context.Context) error {
	d.ui.say("Without a route, both versions get the same:")
	half := [2]float64{0.2, 0.8}
	if err := d.count(ctx, shares{"200 reviews-v1": half, "200 reviews-v2": half},
		"get", "-n", "100", "-c", "4", "--no-keepalive", "http://reviews/"); err != nil {
		return err
	}
	if err := d.applyRoute(ctx, "route-reviews.yaml", "reviews"); err != nil {
		return err
	}
	if err := d.shown(ctx, "get", "gateway,deploy", "-n", namespace, "-l",
		"app.kubernetes.io/managed-by=fairway-operator"); err != nil {
		return err
	}
	// Five standard deviations around 90 and 10 %, so that chance never fails the demo.
	return d.count(ctx, shares{"200 reviews-v1": {0.82, 0.98}, "200 reviews-v2": {0.02, 0.18}},
		"get", "-n", "400", "-c", "4", "http://reviews/")
}

// applyRoute applies a route and waits until proxies serve it, and until callers go through them.
func (d *demo) applyRoute(ctx context.Context, file, route string) error {
	start := time.Now()
	if err := d.apply(ctx, file); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "wait", "-n", namespace, "httproute/"+route, condition("Programmed", true),
		"--timeout=60s"); err != nil {
		return err
	}
	// A waypoint tells applications who calls; until callers' proxies know of a new waypoint they go straight.
	err := until(ctx, 30*time.Second, "an answer through the waypoint", func() error {
		out, err := d.fromShop(ctx, false, "get", "http://"+route+"/")
		if err == nil && !strings.Contains(out, "X-Forwarded-Client-Cert") {
			err = fmt.Errorf("the request went straight to the Service")
		}
		return err
	})
	if err != nil {
		return err
	}
	d.ui.good("programmed: every ready proxy has acknowledged it, %s after kubectl apply",
		time.Since(start).Round(10*time.Millisecond))
	return nil
}

// condition is what kubectl wait waits for: a condition about a route's first parent.
func condition(name string, value bool) string {
	word := map[bool]string{true: "True", false: "False"}[value]
	return `--for=jsonpath={.status.parents[0].conditions[?(@.type=="` + name + `")].status}=` + word
}

// count asks many times from shop, draws what came, and fails unless that is what it should be.
func (d *demo) count(ctx context.Context, want expectation, args ...string) error {
	// The test tool ends with an error where a request got no answer; whether that may be, the expectation says.
	out, err := d.fromShop(ctx, true, args...)
	got, parseErr := counts(out)
	if parseErr != nil {
		return errors.Join(parseErr, err)
	}
	d.ui.bars(got)
	return want.check(got)
}

func (d *demo) header(ctx context.Context) error {
	d.ui.say("The same route sends whoever asks with the header x-beta to version 2, whatever the weights:")
	return d.count(ctx, all("200 reviews-v2"), "get", "-n", "100", "-c", "4", "-H", "x-beta: yes", "http://reviews/")
}

func (d *demo) retries(ctx context.Context) error {
	d.ui.say("One of the two replicas of stock answers after 3 s only; a caller that waits 1 s sees errors:")
	ask := []string{"get", "-n", "12", "-c", "12", "--timeout", "1s", "--no-keepalive", "http://stock/"}
	if err := d.timed(ctx, someUnanswered{}, ask); err != nil {
		return err
	}
	if err := d.applyRoute(ctx, "route-stock.yaml", "stock"); err != nil {
		return err
	}
	d.ui.say("The waypoint gives each try 250 ms and then asks another replica:")
	return d.timed(ctx, all("200 stock-1"), ask)
}

func (d *demo) timed(ctx context.Context, want expectation, ask []string) error {
	start := time.Now()
	if err := d.count(ctx, want, ask...); err != nil {
		return err
	}
	d.ui.say("%s", d.ui.style(dim, fmt.Sprintf("in %s", time.Since(start).Round(10*time.Millisecond))))
	return nil
}

func (d *demo) describe(ctx context.Context) error {
	d.ui.command("kubectl describe httproute -n " + namespace + " reviews")
	out, err := d.kubectl(ctx, "describe", "httproute", "-n", namespace, "reviews")
	if err != nil {
		return err
	}
	if i := strings.Index(out, "Status:"); i >= 0 {
		out = out[i:]
	}
	d.ui.output(out)
	return nil
}

func (d *demo) broken(ctx context.Context) error {
	if err := d.apply(ctx, "route-broken.yaml"); err != nil {
		return err
	}
	if _, err := d.kubectl(ctx, "wait", "-n", namespace, "httproute/recommendations", condition("ResolvedRefs", false),
		"--timeout=30s"); err != nil {
		return err
	}
	// The refusal must be in force before it is shown.
	if _, err := d.kubectl(ctx, "wait", "-n", namespace, "httproute/recommendations", condition("Programmed", true),
		"--timeout=30s"); err != nil {
		return err
	}
	conditions := `jsonpath={range .status.parents[0].conditions[*]}{.type}={.status}  {.reason}: {.message}{"\n"}{end}`
	if err := d.shown(ctx, "get", "httproute", "-n", namespace, "recommendations", "-o", conditions); err != nil {
		return err
	}
	d.ui.say("Requests that match the broken rule are refused, the other rules and routes go on:")
	if err := d.count(ctx, all("500"), "get", "-n", "20", "http://shop/recommendations"); err != nil {
		return err
	}
	if err := d.count(ctx, all("200 shop"), "get", "-n", "20", "http://shop/"); err != nil {
		return err
	}
	return d.count(ctx, shares{"200 reviews-v1": {0, 1}, "200 reviews-v2": {0, 1}}, "get", "-n", "20", "http://reviews/")
}

func (d *demo) status(ctx context.Context) error {
	if _, err := d.capture(ctx, "make", "build"); err != nil {
		return err
	}
	d.ui.command("bin/fairway status")
	var out string
	err := until(ctx, 20*time.Second, "a healthy mesh", func() (err error) {
		out, err = d.capture(ctx, d.path("bin", "fairway"), "status")
		return err
	})
	d.ui.output(out)
	return err
}

func (d *demo) next() {
	d.ui.title("Everything goes on running. What to try next")
	for _, line := range []string{
		`eval "$(hack/devcluster/devcluster env)"    # kubectl of this cluster, in this shell`,
		"kubectl describe mesh default",
		"kubectl edit httproute -n bookshop reviews    # change 90 and 10, and ask again:",
		"kubectl exec -n bookshop deploy/shop -- /tool get -n 200 http://reviews/",
		"kubectl label namespace bookshop fairway.dev/mtls-mode=strict    # no plaintext from outside any more",
		"kubectl delete -n bookshop authorizationpolicies --all    # everybody may call everybody again",
		"kubectl delete -n bookshop httproute --all    # and the waypoint goes half a minute later",
		"bin/fairway proxy routes -n bookshop $(kubectl get pod -n bookshop -l app.kubernetes.io/component=waypoint -o " +
			"name | head -1 | cut -d/ -f2)",
		"kubectl logs -n fairway-system ds/fairway-node -c envoy -f",
		"make demo-down    # remove all of it",
	} {
		d.ui.hint(line)
	}
	d.ui.say("\n   Done in %s. Docs: README.md, docs/user-guide.md", time.Since(d.ui.start).Round(time.Second))
}

// remove takes the demo away, and the cluster with all that is in it.
func (d *demo) remove(ctx context.Context) error {
	if err := d.find(ctx); err != nil {
		return err
	}
	d.ui.command("make cluster-down")
	if _, err := d.progress(ctx, d.devcluster(), "down"); err != nil {
		return err
	}
	d.ui.say("What was built stays for the next time: in %s, which make cluster-clean removes,", d.devclusterHome())
	d.ui.say("in bin/, and in Go's build cache.")
	return nil
}

// troubled says where to look after a step has failed.
func (d *demo) troubled() {
	d.ui.say("\n   Everything is left as it is. Where to look:")
	for _, line := range []string{
		"hack/kubectl get mesh,pods,gateways,httproutes -A",
		"hack/kubectl logs -n fairway-system deploy/fairway-operator    # or ds/fairway-node -c envoy, -c agent",
		"ls " + d.devclusterHome() + "/state/*.log    # of the nodes; their daemons: state/node1/root/var/log/fairway-dev",
		"make demo-down    # remove all of it, and make demo begins anew",
	} {
		d.ui.hint(line)
	}
}
