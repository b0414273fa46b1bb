// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package topology is the one place that says which nodes the dev cluster has, which addresses everything gets, and
// where its files live.
package topology

import (
	"fmt"
	"net/netip"
)

// prefix begins the names of what the cluster has on the machine: names that nobody else uses, because up takes what it
// finds for its own and down removes it.
const prefix = "fairway-"

// Addresses of the cluster. All of them exist only inside the cluster's own network namespaces: the machine's namespace
// has no leg in them, so nothing is reachable from outside and nothing inside reaches out.
const (
	// Lan is what commands call the switch that joins the nodes.
	Lan = "lan"
	// LanNetns is its network namespace; a client "outside the cluster" runs here.
	LanNetns = prefix + Lan
	// LanBridge is the bridge in LanNetns.
	LanBridge = "lan0"
	// LanAddress is the bridge's own address, gateway of the nodes.
	LanAddress = "172.30.0.254"
	// LanPrefix is the network of LanAddress and of the nodes.
	LanPrefix = "172.30.0.0/24"
	// LoadBalancerPrefix is where Services of type LoadBalancer get their address.
	LoadBalancerPrefix = "172.30.1.0/24"
	// PodPrefix holds the PodCIDR of every node.
	PodPrefix = "10.200.0.0/16"
	// ServicePrefix holds the ClusterIPs.
	ServicePrefix = "10.96.0.0/16"
	// APIServiceIP is the ClusterIP of the Service "kubernetes": the first address of ServicePrefix.
	APIServiceIP = "10.96.0.1"
	// DNSServiceIP is the ClusterIP of CoreDNS.
	DNSServiceIP = "10.96.0.10"
	// ClusterDomain ends the DNS names of Services.
	ClusterDomain = "cluster.local"
	// APIPort is where the API server listens on its node.
	APIPort = 6443
)

// Versions and names of what is not pinned by a tool module.
const (
	// PauseImage holds the network namespace of a pod.
	PauseImage = "fairway.dev/dev/pause:1"
	// CoreDNSImage is cluster DNS, built from the tool module.
	CoreDNSImage = "fairway.dev/dev/coredns:v1.15.0"
)

// Node is one node of the cluster.
type Node struct {
	// Name is the node's name in Kubernetes, and its host name.
	Name string
	// Address is its address on the lan.
	Address string
	// PodCIDR is the range of its pods: CNI hands it out, and Node.spec.podCIDR says so.
	PodCIDR string
	// ControlPlane is true for the node that runs etcd, API server, controller manager and scheduler.
	ControlPlane bool
}

// Nodes of the cluster, the control plane first.
var Nodes = []Node{
	{Name: "node1", Address: "172.30.0.11", PodCIDR: "10.200.1.0/24", ControlPlane: true},
	{Name: "node2", Address: "172.30.0.12", PodCIDR: "10.200.2.0/24"},
}

// Find returns the node of that name.
func Find(name string) (Node, error) {
	for _, n := range Nodes {
		if n.Name == name {
			return n, nil
		}
	}
	return Node{}, fmt.Errorf("there is no node %q: the nodes are %s and %s", name, Nodes[0].Name, Nodes[1].Name)
}

// APIAddress is the address and port of the API server as nodes, pods and the lan see it.
func APIAddress() string {
	return netip.AddrPortFrom(netip.MustParseAddr(Nodes[0].Address), APIPort).String()
}

// CgroupRoot is the cgroup, relative to the root of every hierarchy, under which kubelet puts the node's pods.
func (n Node) CgroupRoot() string { return "/" + prefix + n.Name }

// Netns is the name of the node's network namespace, as `ip netns` lists it.
func (n Node) Netns() string { return prefix + n.Name }
