// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package build

import "slices"

// Component is what one tool module builds: packages of one upstream project, at the versions that the module pins.
type Component struct {
	// Name is the folder of its module below tools/.
	Name string
	// Packages to build: those that the module's go.mod names as tools, or "." for its own program, which the module's
	// folder gives its name.
	Packages []string
	// Links are further names of the first binary, which becomes what it is called by.
	Links []string
	// CNI says that the results are CNI plugins, which live in a folder of their own.
	CNI bool
	// Rename gives the first binary a name other than that of its package's folder.
	Rename string
	// Tags are build tags. What packages of Go itself know, such as netgo, would have much compiled a second time.
	Tags string
	// LDFlags go beside those that every component gets.
	LDFlags string
}

const (
	kubernetesVersion = "v1.37.2"
	componentBase     = "k8s.io/component-base/version"
	kubernetesCmd     = "k8s.io/kubernetes/cmd/"
	containerdCmd     = "github.com/containerd/containerd/v2/cmd/"
	cniPlugins        = "github.com/containernetworking/plugins/plugins/"
	istioEcho         = "istio.io/istio/pkg/test/echo/cmd/"
)

// Components lists everything that is built, slowest first.
var Components = []Component{
	{
		Name:     "kubernetes",
		Packages: []string{".", kubernetesCmd + "kubectl"},
		Rename:   "kubernetes",
		Links:    []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"},
		// Without these the API server says v0.0.0, and kubelet is refused.
		LDFlags: "-X " + componentBase + ".gitVersion=" + kubernetesVersion +
			" -X " + componentBase + ".gitMajor=1 -X " + componentBase + ".gitMinor=37",
	},
	{Name: "etcd", Packages: []string{"go.etcd.io/etcd/server/v3"}, Rename: "etcd"},
	{
		Name:     "containerd",
		Packages: []string{containerdCmd + "containerd", containerdCmd + "containerd-shim-runc-v2", containerdCmd + "ctr"},
		Tags:     "no_btrfs no_zfs no_devmapper no_rdt no_tracing",
	},
	{
		Name: "cni",
		Packages: []string{
			cniPlugins + "main/ptp", cniPlugins + "main/loopback", cniPlugins + "ipam/host-local",
			cniPlugins + "meta/portmap",
		},
		CNI: true,
	},
	{Name: "coredns", Packages: []string{"."}, Rename: "coredns"},
	{Name: "echo-basic", Packages: []string{"sigs.k8s.io/gateway-api/conformance/echo-basic"}},
	{Name: "echo-advanced", Packages: []string{istioEcho + "server", istioEcho + "client"}},
}

// NetworkPolicies is what enforces NetworkPolicies in a cluster that is to. Nothing else needs it.
var NetworkPolicies = Component{Name: "network-policies", Packages: []string{"."}}

// forConformance names the components that only the conformance suite's images need. They take minutes to compile,
// which neither the cluster nor the other tests are to wait for.
var forConformance = []string{"echo-basic", "echo-advanced"}

// ForCluster returns the components that the cluster itself is made of.
func ForCluster() []Component {
	return slices.DeleteFunc(slices.Clone(Components),
		func(c Component) bool { return slices.Contains(forConformance, c.Name) })
}
