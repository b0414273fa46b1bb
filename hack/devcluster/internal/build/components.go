// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package build

import "slices"

// Component is what one tool module builds: packages of one upstream project, at the versions that the module pins.
type Component struct {
	// Name is the folder of its module below tools/.
	Name string
	// packages to build: those that the module's go.mod names as tools, or "." for its own program, which the module's
	// folder gives its name.
	packages []string
	// links are further names of the first binary, which becomes what it is called by.
	links []string
	// cni says that the results are CNI plugins, which live in a folder of their own.
	cni bool
	// rename gives the first binary a name other than that of its package's folder.
	rename string
	// tags are build tags. What packages of Go itself know, such as netgo, would have much compiled a second time.
	tags string
	// ldFlags go beside those that every component gets.
	ldFlags string
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
		packages: []string{".", kubernetesCmd + "kubectl"},
		rename:   "kubernetes",
		links:    []string{"kube-apiserver", "kube-controller-manager", "kube-scheduler", "kube-proxy", "kubelet"},
		// Without these the API server says v0.0.0, and kubelet is refused.
		ldFlags: "-X " + componentBase + ".gitVersion=" + kubernetesVersion +
			" -X " + componentBase + ".gitMajor=1 -X " + componentBase + ".gitMinor=37",
	},
	{Name: "etcd", packages: []string{"go.etcd.io/etcd/server/v3"}, rename: "etcd"},
	{
		Name:     "containerd",
		packages: []string{containerdCmd + "containerd", containerdCmd + "containerd-shim-runc-v2", containerdCmd + "ctr"},
		tags:     "no_btrfs no_zfs no_devmapper no_rdt no_tracing",
	},
	{
		Name: "cni",
		packages: []string{
			cniPlugins + "main/ptp", cniPlugins + "main/loopback", cniPlugins + "ipam/host-local",
			cniPlugins + "meta/portmap",
		},
		cni: true,
	},
	{Name: "coredns", packages: []string{"."}, rename: "coredns"},
	{Name: "echo-basic", packages: []string{"sigs.k8s.io/gateway-api-conformance-images/echo-basic"}},
	{Name: "echo-advanced", packages: []string{istioEcho + "server", istioEcho + "client"}},
}

// NetworkPolicies is what enforces NetworkPolicies in a cluster that is to. Nothing else needs it.
var NetworkPolicies = Component{Name: "network-policies", packages: []string{"."}}

// forConformance names the components that only the conformance suite's images need. They take minutes to compile,
// which neither the cluster nor the other tests are to wait for.
var forConformance = []string{"echo-basic", "echo-advanced"}

// ForCluster returns the components that the cluster itself is made of.
func ForCluster() []Component {
	return slices.DeleteFunc(slices.Clone(Components),
		func(c Component) bool { return slices.Contains(forConformance, c.Name) })
}
