// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package nodeconf

import (
	"fmt"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// Paths in a node.
const (
	// BinDir holds the binaries of Kubernetes, etcd and containerd.
	BinDir = "/opt/fairway-dev/bin"
	// BootDir holds the image archives to import before kubelet starts.
	BootDir = "/opt/fairway-dev/boot"
	// LogDir holds one log per daemon.
	LogDir = "/var/log/fairway-dev"
	// PKIDir holds the cluster's keys, on the control plane only.
	PKIDir = "/etc/kubernetes/pki"
	// Kubeconfig is the administrator's.
	Kubeconfig = "/etc/kubernetes/admin.conf"
	// KubeletDir holds the node's own credentials.
	KubeletDir = "/etc/kubelet"
	// ContainerdSocket is containerd's, CRI included.
	ContainerdSocket = "/run/containerd/containerd.sock"
)

// Environment is that of every process that starts in a node.
func Environment() []string {
	return []string{
		"PATH=" + BinDir + ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
		"HOME=/root", "KUBECONFIG=" + Kubeconfig, "TERM=xterm",
	}
}

// Daemon is a process that a node keeps running.
type Daemon struct {
	Name string
	args []string
}

// Argv is the whole command line.
func (d Daemon) Argv() []string { return append([]string{BinDir + "/" + d.Name}, d.args...) }

// First returns what starts at once: the container runtime and, on the control plane, Kubernetes itself.
func First(n topology.Node) []Daemon {
	daemons := []Daemon{{"containerd", []string{"--config", "/etc/containerd/config.toml"}}}
	if n.ControlPlane {
		daemons = append(daemons, etcd(), apiServer(n), controllerManager(), scheduler())
	}
	return daemons
}

// Second returns what starts once containerd holds the pause image.
func Second(n topology.Node) []Daemon {
	return []Daemon{
		{"kubelet", []string{
			"--config=/etc/kubelet/config.yaml", "--kubeconfig=" + KubeletDir + "/kubelet.conf",
			"--hostname-override=" + n.Name, "--node-ip=" + n.Address, "--root-dir=/var/lib/kubelet", "--v=1",
		}},
		{"kube-proxy", []string{"--config=/etc/kubelet/proxy.yaml"}},
	}
}

func etcd() Daemon {
	const client, peer = "http://127.0.0.1:2379", "http://127.0.0.1:2380"
	return Daemon{"etcd", []string{
		"--name=dev", "--data-dir=/var/lib/etcd", "--auto-compaction-retention=1h",
		// A dev cluster may lose its last writes when the machine crashes.
		"--unsafe-no-fsync",
		"--listen-client-urls=" + client, "--advertise-client-urls=" + client,
		"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=dev=" + peer,
	}}
}

func apiServer(n topology.Node) Daemon {
	return Daemon{"kube-apiserver", []string{
		"--etcd-servers=http://127.0.0.1:2379",
		"--advertise-address=" + n.Address, fmt.Sprintf("--secure-port=%d", topology.APIPort),
		"--service-cluster-ip-range=" + topology.ServicePrefix,
		"--allow-privileged=true", "--authorization-mode=Node,RBAC", "--enable-admission-plugins=NodeRestriction",
		"--client-ca-file=" + PKIDir + "/ca.crt",
		"--tls-cert-file=" + PKIDir + "/apiserver.crt", "--tls-private-key-file=" + PKIDir + "/apiserver.key",
		"--kubelet-certificate-authority=" + PKIDir + "/ca.crt",
		"--kubelet-client-certificate=" + PKIDir + "/apiserver-kubelet-client.crt",
		"--kubelet-client-key=" + PKIDir + "/apiserver-kubelet-client.key",
		"--kubelet-preferred-address-types=InternalIP",
		"--service-account-issuer=https://kubernetes.default.svc." + topology.ClusterDomain,
		"--service-account-key-file=" + PKIDir + "/sa.pub", "--service-account-signing-key-file=" + PKIDir + "/sa.key",
		"--requestheader-client-ca-file=" + PKIDir + "/front-proxy-ca.crt",
		"--requestheader-allowed-names=front-proxy-client",
		"--requestheader-username-headers=X-Remote-User", "--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-",
		"--proxy-client-cert-file=" + PKIDir + "/front-proxy-client.crt",
		"--proxy-client-key-file=" + PKIDir + "/front-proxy-client.key",
		"--enable-aggregator-routing=true", "--profiling=false",
	}}
}

// The default client rates of the controllers cost seconds at start-up.
var fastClient = []string{"--kube-api-qps=500", "--kube-api-burst=1000"}

func controllerManager() Daemon {
	return Daemon{"kube-controller-manager", append([]string{
		"--kubeconfig=" + PKIDir + "/kube-controller-manager.conf",
		"--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false",
		"--service-account-private-key-file=" + PKIDir + "/sa.key", "--root-ca-file=" + PKIDir + "/ca.crt",
		"--use-service-account-credentials=true",
		"--cluster-signing-cert-file=" + PKIDir + "/ca.crt", "--cluster-signing-key-file=" + PKIDir + "/ca.key",
		// Pod ranges are fixed per node, and `up` writes them to the Nodes, so that CNI and API always agree.
		"--cluster-cidr=" + topology.PodPrefix, "--allocate-node-cidrs=false",
	}, fastClient...)}
}

func scheduler() Daemon {
	return Daemon{"kube-scheduler", append([]string{
		"--kubeconfig=" + PKIDir + "/kube-scheduler.conf",
		"--leader-elect=false", "--bind-address=127.0.0.1", "--profiling=false",
	}, fastClient...)}
}
