// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package nodeconf says, without doing anything, what a node is made of: its configuration files and the command lines
// of its daemons.
package nodeconf

import (
	"bytes"
	"crypto/md5"
	"embed"
	"encoding/hex"
	"fmt"
	"text/template"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

//go:embed templates
var templates embed.FS

// Machine is what the files depend on besides the topology.
type Machine struct {
	// Runc is the path of runc below /usr.
	Runc string
	// Snapshotter of containerd: overlayfs, or native where the state folder is on an overlay itself.
	Snapshotter string
}

// files maps the path of each templated file in a node to its template.
var files = map[string]string{
	"/etc/containerd/config.toml":    "containerd.toml",
	"/etc/cni/net.d/10-dev.conflist": "cni.conflist",
	"/etc/kubelet/config.yaml":       "kubelet.yaml",
	"/etc/kubelet/proxy.yaml":        "kube-proxy.yaml",
}

// Files returns the content of every configuration file of a node, by absolute path in the node.
func Files(n topology.Node, m Machine) (map[string][]byte, error) {
	all, err := template.New("").Option("missingkey=error").ParseFS(templates, "templates/*")
	if err != nil {
		return nil, err
	}
	values := map[string]string{
		"Name": n.Name, "Address": n.Address, "PodCIDR": n.PodCIDR, "CgroupRoot": n.CgroupRoot(),
		"Runc": m.Runc, "Snapshotter": m.Snapshotter, "PauseImage": topology.PauseImage,
		"ClusterDomain": topology.ClusterDomain, "DNSServiceIP": topology.DNSServiceIP, "PodPrefix": topology.PodPrefix,
	}
	out := map[string][]byte{
		"/etc/hosts":       fmt.Appendf(nil, "127.0.0.1 localhost\n%s %s\n", n.Address, n.Name),
		"/etc/resolv.conf": fmt.Appendf(nil, "nameserver %s\n", topology.DNSServiceIP),
		"/etc/machine-id":  []byte(machineID(n.Name) + "\n"),
	}
	for path, name := range files {
		var b bytes.Buffer
		if err := all.ExecuteTemplate(&b, name, values); err != nil {
			return nil, err
		}
		out[path] = b.Bytes()
	}
	return out, nil
}

// machineID is stable, so that a node that comes back is the same node.
func machineID(name string) string {
	sum := md5.Sum([]byte(name))
	return hex.EncodeToString(sum[:])
}
