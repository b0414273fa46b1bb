// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestPathsOfPlatforms sets up the mesh by the paths of other distributions, as docs/platforms.md has them: the nodes
// have their own directories and socket there, too, for as long. The plugin is installed by them, and pods that start
// are in the mesh. Nothing is left of it.
func TestPathsOfPlatforms(t *testing.T) {
	s := enrolled(t, names.LabelMTLSMode, names.MTLSStrict)
	s.server("server")
	s.service("server", "server")
	original := deleteMesh(t)
	for name, host := range map[string]v1alpha1.HostPaths{
		"k3s": {
			CNIConfDir: "/var/lib/rancher/k3s/agent/etc/cni/net.d", CNIBinDir: "/var/lib/rancher/k3s/data/cni",
		},
		"microk8s": {
			CNIConfDir: "/var/snap/microk8s/current/args/cni-network", CNIBinDir: "/var/snap/microk8s/current/opt/cni/bin",
			RuntimeSocket: "/var/snap/microk8s/common/run/containerd.sock",
		},
		"gke": {CNIBinDir: "/home/kubernetes/bin"},
	} {
		t.Run(name, func(t *testing.T) {
			mounted(t, host)
			mesh := original.DeepCopy()
			if mesh.Spec.Node == nil {
				mesh.Spec.Node = &v1alpha1.Node{}
			}
			mesh.Spec.Node.Host = &host
			createMesh(t, mesh)
			for _, node := range nodeNames(t) {
				require.NoError(t, devCluster(t, node, fmt.Sprintf("grep -q %s %s/*.conflist && test -x %s/%s",
					cniPlugin, orDefault(host.CNIConfDir, "/etc/cni/net.d"), orDefault(host.CNIBinDir, "/opt/cni/bin"), cniPlugin)))
			}
			s := &space{t: t, name: s.name}
			from := "client-" + name
			s.client(from)
			s.captured(from, "server")
			s.answers(from, "http://server/", "server")
		})
	}
	noTracesOnNodes(t)
}

const cniPlugin = "fairway-cni"

func orDefault(path v1alpha1.HostPath, otherwise string) string {
	if path == "" {
		return otherwise
	}
	return string(path)
}

// mounted has each node's own directories at other paths until the test has ended and the Mesh is gone.
func mounted(t *testing.T, host v1alpha1.HostPaths) {
	t.Helper()
	var mount, unmount strings.Builder
	for _, p := range []struct {
		own string
		at  v1alpha1.HostPath
	}{
		{"/etc/cni/net.d", host.CNIConfDir},
		{"/opt/cni/bin", host.CNIBinDir},
		{"/run/containerd", v1alpha1.HostPath(strings.TrimSuffix(string(host.RuntimeSocket), "/containerd.sock"))},
	} {
		if p.at != "" {
			fmt.Fprintf(&mount, "mkdir -p %[2]s && mount --bind %[1]s %[2]s || exit 1\n", p.own, p.at)
			// What isn't empty is somebody else's.
			fmt.Fprintf(&unmount, "umount %[1]s; rmdir -p %[1]s 2>/dev/null\n", p.at)
		}
	}
	for _, node := range nodeNames(t) {
		t.Cleanup(func() {
			out, err := devClusterCommandWithin(lasting(t), node, unmount.String()+"true").CombinedOutput()
			require.NoError(t, err, "%s", out)
		})
		require.NoError(t, devCluster(t, node, mount.String()))
	}
	t.Cleanup(func() {
		ctx := lasting(t)
		require.NoError(t, client.IgnoreNotFound(world.client.Delete(ctx, &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)})))
		eventually.PassesWithin(t, 2*time.Minute, "the node proxies go", func(look require.TestingT) {
			err := world.client.Get(ctx, client.ObjectKey{Namespace: names.SystemNamespace, Name: names.NodeDaemonSet},
				&appsv1.DaemonSet{})
			require.Error(look, err)
			require.NoError(look, client.IgnoreNotFound(err))
		})
	})
}
