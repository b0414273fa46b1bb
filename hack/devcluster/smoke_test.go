// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"fmt"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/images"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/node"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/process"
	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

const smokeNamespace = "devcluster-smoke"

// TestSmoke sends real requests through a running cluster that holds the test images.
func TestSmoke(t *testing.T) {
	home, err := topology.FindHome()
	if err != nil || !process.Running(home.Process(topology.Nodes[0].Name)) {
		t.Skip("skipped: the dev cluster is not up (`up`, then `images`)")
	}
	loaded, err := node.Command(home, topology.Nodes[0].Name, "ctr", "--namespace=k8s.io", "images", "list", "--quiet",
		"name=="+images.TestTool)
	if err != nil {
		t.Fatal(err)
	}
	if out, err := loaded.Output(); err != nil || len(out) == 0 {
		t.Skip("skipped: the dev cluster holds no test images (`images`)")
	}
	kubectl := kubectlFor(t, home)
	kubectl("apply", "--filename=testdata/smoke.yaml")
	t.Cleanup(func() { kubectl("delete", "namespace", smokeNamespace) })
	kubectl("--namespace="+smokeNamespace, "rollout", "status", "daemonset/echo", "--timeout=120s")
	tool := filepath.Join(home.Work(), "testtool")
	field := func(service, path string) string {
		return kubectl("--namespace="+smokeNamespace, "get", "service", service, "--output=jsonpath={"+path+"}")
	}
	balanced := func(service string) string {
		kubectl("--namespace="+smokeNamespace, "wait", "service/"+service,
			"--for=jsonpath={.status.loadBalancer.ingress[0].ip}", "--timeout=30s")
		return field(service, ".status.loadBalancer.ingress[0].ip")
	}

	for name, url := range map[string]string{
		"node port of node1": "http://172.30.0.11:30080", "node port of node2": "http://172.30.0.12:30080",
		"load balancer": "http://" + balanced("echo"), "load balancer to local endpoints": "http://" + balanced("echo-local"),
	} {
		want := []string{"node1", "node2"}
		if strings.Contains(name, "local") {
			want = want[:1] // one node gets all packets, and keeps them
		}
		t.Run(name, func(t *testing.T) {
			reaches(t, want, func() (*exec.Cmd, error) {
				return node.Command(home, topology.Lan, tool, "get", "-n", "20", "--no-keepalive", url)
			})
		})
	}
	for _, pod := range strings.Fields(kubectl("--namespace="+smokeNamespace, "get", "pods", "--output=name")) {
		t.Run("cluster IP from "+pod, func(t *testing.T) {
			reaches(t, []string{"node1", "node2"}, func() (*exec.Cmd, error) {
				return exec.Command(filepath.Join(home.Bin(), "kubectl"), "--kubeconfig", home.Kubeconfig(),
					"--namespace="+smokeNamespace,
					"exec", pod, "--", "/tool", "get", "-n", "20", "--no-keepalive", "http://echo"), nil
			})
		})
	}
	t.Run("no leg in the machine's own namespace", func(t *testing.T) {
		out, err := exec.Command("ip", "-4", "route", "show").CombinedOutput()
		if err != nil {
			t.Skipf("no ip: %v", err)
		}
		for _, prefix := range []string{"172.30.", "10.200.", "10.96."} {
			if strings.Contains(string(out), prefix) {
				t.Errorf("the machine has a route into the cluster:\n%s", out)
			}
		}
	})
}

// kubectlFor returns a function that runs kubectl and returns what it prints.
func kubectlFor(t *testing.T, home topology.Home) func(args ...string) string {
	return func(args ...string) string {
		t.Helper()
		out, err := exec.Command(filepath.Join(home.Bin(), "kubectl"),
			append([]string{"--kubeconfig", home.Kubeconfig()}, args...)...).CombinedOutput()
		if err != nil {
			t.Fatalf("kubectl %v: %v\n%s", args, err, out)
		}
		return string(out)
	}
}

// TestCertManager has cert-manager issue a root, an intermediate CA and a leaf.
func TestCertManager(t *testing.T) {
	home, err := topology.FindHome()
	if err != nil || !process.Running(home.Process(topology.Nodes[0].Name)) {
		t.Skip("skipped: the dev cluster is not up (`up`, then `cert-manager`)")
	}
	kubectl := kubectlFor(t, home)
	if kubectl("get", "deployment", "--all-namespaces", "--selector=app=cert-manager", "--output=name") == "" {
		t.Skip("skipped: cert-manager is not installed (`cert-manager`)")
	}
	const namespace = "devcluster-certificates"
	kubectl("apply", "--filename=testdata/certificates.yaml")
	t.Cleanup(func() { kubectl("delete", "namespace", namespace) })
	kubectl("--namespace="+namespace, "wait", "certificate", "--all", "--for=condition=Ready", "--timeout=60s")
	data, err := base64.StdEncoding.DecodeString(
		kubectl("--namespace="+namespace, "get", "secret", "intermediate", `--output=jsonpath={.data.tls\.crt}`))
	if err != nil {
		t.Fatal(err)
	}
	block, _ := pem.Decode(data)
	if block == nil {
		t.Fatalf("no certificate in %q", data)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	if !cert.IsCA || cert.Issuer.CommonName != "devcluster-ca" {
		t.Errorf("got a certificate of %s, CA %v", cert.Issuer, cert.IsCA)
	}
}

// reaches runs a command of twenty requests until its answers come from all the servers that are wanted, which
// kube-proxy picks at random.
func reaches(t *testing.T, want []string, command func() (*exec.Cmd, error)) {
	t.Helper()
	var last string
	err := wait.PollUntilContextTimeout(t.Context(), 200*time.Millisecond, 20*time.Second, true, func(context.Context) (
		bool, error,
	) {
		cmd, err := command()
		if err != nil {
			return false, err
		}
		var out bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &out
		err = cmd.Run()
		last = fmt.Sprint(out.String(), err)
		for _, w := range want {
			if err != nil || !strings.Contains(out.String(), " 200 "+w) {
				return false, nil //nolint:nilerr // not yet
			}
		}
		return true, nil
	})
	if err != nil {
		t.Errorf("%v: %s", err, last)
	}
}
