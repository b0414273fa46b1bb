// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeconf

import (
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

func render(t *testing.T, n topology.Node) map[string][]byte {
	t.Helper()
	files, err := Files(n, Machine{Runc: "/usr/sbin/runc", Snapshotter: "overlayfs"})
	if err != nil {
		t.Fatal(err)
	}
	return files
}

func TestFilesAreWellFormed(t *testing.T) {
	for path, data := range render(t, topology.Nodes[0]) {
		if strings.Contains(string(data), "<no value>") {
			t.Errorf("%s: a value is missing:\n%s", path, data)
		}
		var into map[string]any
		var err error
		switch {
		case strings.HasSuffix(path, ".yaml"):
			err = yaml.UnmarshalStrict(data, &into)
		case strings.HasSuffix(path, ".conflist"):
			err = json.Unmarshal(data, &into)
		}
		if err != nil {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestNodesDiffer(t *testing.T) {
	one, two := render(t, topology.Nodes[0]), render(t, topology.Nodes[1])
	for _, path := range []string{
		"/etc/hosts", "/etc/machine-id", "/etc/cni/net.d/10-dev.conflist", "/etc/kubelet/config.yaml",
		"/etc/kubelet/proxy.yaml",
	} {
		if string(one[path]) == string(two[path]) {
			t.Errorf("%s is the same on both nodes", path)
		}
	}
}

func TestKubeletServesItsAddressOnly(t *testing.T) {
	var kubelet struct{ Address, CgroupRoot string }
	if err := yaml.Unmarshal(render(t, topology.Nodes[1])["/etc/kubelet/config.yaml"], &kubelet); err != nil {
		t.Fatal(err)
	}
	if kubelet.Address != topology.Nodes[1].Address || kubelet.CgroupRoot != topology.Nodes[1].CgroupRoot() {
		t.Errorf("got %+v", kubelet)
	}
}

func TestControlPlaneRunsOnItsNodeOnly(t *testing.T) {
	names := func(n topology.Node) (out []string) {
		for _, d := range append(First(n), Second(n)...) {
			out = append(out, d.Name)
			if !strings.HasPrefix(d.Argv()[0], BinDir) {
				t.Errorf("%s starts from %s", d.Name, d.Argv()[0])
			}
		}
		return out
	}
	want := []string{
		"containerd", "etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kubelet",
		"kube-proxy",
	}
	if got := names(topology.Nodes[0]); !slices.Equal(got, want) {
		t.Errorf("got %v", got)
	}
	if got := names(topology.Nodes[1]); !slices.Equal(got, []string{"containerd", "kubelet", "kube-proxy"}) {
		t.Errorf("got %v", got)
	}
}
