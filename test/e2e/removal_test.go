// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// enableUndeploy must be set, because the test needs `make undeploy` and `make deploy` of the working tree.
const enableUndeploy = "FAIRWAY_E2E_UNDEPLOY"

// removals are ways to remove Fairway, by the order in which its parts go.
var removals = map[string]func(*testing.T, *space){
	"in order": func(t *testing.T, s *space) {
		t.Helper()
		run(t.Context(), t, "undeploy")
		s.captureIs(corev1.ConditionFalse, "client", "server")
		route := &gwv1.HTTPRoute{}
		require.NoError(t, world.client.Get(t.Context(), client.ObjectKey{Namespace: s.name, Name: "server"}, route))
		require.Empty(t, route.Status.Parents, "the operator takes back what it said")
	},
	"all at once": func(t *testing.T, _ *space) { t.Helper(); deleteAll(t) },
	// As the Operator Lifecycle Manager does: the agents' rights go with the operator, while the Mesh is there.
	"the operator first": func(t *testing.T, _ *space) {
		t.Helper()
		kubectl(t, "delete", "-n", names.SystemNamespace, "deployment/"+names.OperatorDeployment)
		kubectl(t, "delete", "-k", "../../config/rbac")
		kubectl(t, "delete", "meshes.fairway.dev", names.Mesh, "--timeout=20s")
		takenDown(t)
		deleteAll(t)
	},
	"its namespace first": func(t *testing.T, _ *space) {
		t.Helper()
		kubectl(t, "delete", "namespace", names.SystemNamespace, "--timeout=120s")
		kubectl(t, "delete", "meshes.fairway.dev", names.Mesh, "--timeout=20s")
		eventually.PassesWithin(t, time.Minute, "what the Mesh owned is gone", func(look require.TestingT) {
			require.Empty(look, objectsOfTheMesh(t, ownedByAMesh))
		})
		deleteAll(t)
	},
	"its kinds first": func(t *testing.T, _ *space) {
		t.Helper()
		kubectl(t, "delete", "-k", "../../config/crd", "--timeout=60s")
		takenDown(t)
		deleteAll(t)
	},
}

// withTheKinds are those where the CRDs may go before Kubernetes' garbage collector has seen the Mesh go. It keeps what
// is owned by objects of kinds that it doesn't know any more (docs/install.md).
var withTheKinds = map[string]bool{"all at once": true, "its kinds first": true}

// takenDown waits until the operator, or who is left, has let go what captures pods.
func takenDown(t *testing.T) {
	t.Helper()
	eventually.PassesWithin(t, time.Minute, "the node proxies are gone", func(look require.TestingT) {
		require.True(look, gone(t, &appsv1.DaemonSet{}, names.SystemNamespace, names.NodeDaemonSet))
	})
}

func deleteAll(t *testing.T) {
	t.Helper()
	kubectl(t, "delete", "-k", "../../config/default", "--ignore-not-found", "--timeout=120s")
}

// Removing Fairway as a whole, in whatever order, leaves pods uncaptured and working, nothing that hangs, and no trace.
func TestUndeploy(t *testing.T) {
	if os.Getenv(enableUndeploy) == "" {
		t.Skipf("runs make undeploy and make deploy: set %s=1", enableUndeploy)
	}
	s := enrolled(t)
	s.client("client")
	s.server("server")
	s.service("server", "server")
	s.create(httpRoute("server", toService("server"), rule(nil, backend("server"))))
	s.captured("client", "server")
	before := s.pod("server")
	mesh := &v1alpha1.Mesh{ObjectMeta: metaOf(names.Mesh)}
	require.NoError(t, world.client.Get(t.Context(), client.ObjectKeyFromObject(mesh), mesh))
	t.Cleanup(func() {
		run(context.Background(), t, "deploy")
		restore(mesh)
		meshReady(t)
	})
	for name, remove := range removals {
		t.Run(name, func(t *testing.T) {
			s.programmed("server") // by a waypoint that is to go
			remove(t, s)
			require.True(t, gone(t, &corev1.Namespace{}, "", names.SystemNamespace))
			if !withTheKinds[name] {
				noObjects(t)
			}
			noTracesOnNodes(t)
			got := s.many("client", 20, "http://server/")
			require.Empty(t, got.failures())
			// A pod that starts without the mesh starts as if there had never been one.
			late := strings.ReplaceAll(name, " ", "-")
			s.server(late)
			s.service(late, late)
			s.answers("client", "http://"+late+"/", late)

			run(t.Context(), t, "deploy")
			createMesh(t, mesh)
			s.captured("client", "server", late)
			s.answers("client", "http://server/", "server")
			require.Equal(t, before.UID, s.pod("server").UID)
		})
	}
}

// noObjects waits until the API server has nothing of the mesh.
func noObjects(t *testing.T) {
	t.Helper()
	eventually.PassesWithin(t, time.Minute, "no object of the mesh is left", func(look require.TestingT) {
		require.Empty(look, objectsOfTheMesh(t, ofTheMesh))
	})
}

// noTracesOnNodes waits until the nodes are as they were.
func noTracesOnNodes(t *testing.T) {
	t.Helper()
	for _, node := range nodeNames(t) {
		eventually.PassesWithin(t, time.Minute, "node "+node+" is as before", func(look require.TestingT) {
			out, err := devClusterCommand(t, node, tracesOfANode).CombinedOutput()
			require.NoError(look, err, "%s", out)
			require.Empty(look, string(out))
		})
	}
}

// tracesOfANode prints what the mesh has left on a node: tables of nftables in the node and in its pods (kube-proxy has
// chains of its own that are named after Services, and drops them when it likes), plugins and their configuration,
// files. Those that the next agent would find stay until the node restarts, as docs/install.md says.
const tracesOfANode = `
look() { sed "s|^|$1: |" | grep -i fairway; }
nft list tables | look "rules of the node"
for n in /var/run/netns/*; do
	[ -e "$n" ] && nsenter --net="$n" nft list tables | look "rules of $n"
done
grep -rl fairway /etc/cni/net.d | look "CNI configuration"
ls -A /opt/cni/bin | look "plugins"
[ ! -d /run/fairway ] || find /run/fairway -mindepth 1 |
	grep -vE '/(charge.lock|charge.json|mark|relay.snapshot)$' | look "files"
true`

// objectsOfTheMesh are those that are wanted of all that the API server has, by name. Events only tell of them, and
// labels of namespaces and Services are their owners'.
func objectsOfTheMesh(t *testing.T, wanted func(*metav1.PartialObjectMetadata) bool) (out []string) {
	t.Helper()
	lists, err := world.clientset.Discovery().ServerPreferredResources()
	require.NoError(t, err)
	for _, l := range lists {
		version, err := schema.ParseGroupVersion(l.GroupVersion)
		require.NoError(t, err)
		for i := range l.APIResources {
			r := &l.APIResources[i]
			if !slices.Contains(r.Verbs, "list") || r.Kind == "Event" {
				continue
			}
			var list metav1.PartialObjectMetadataList
			list.SetGroupVersionKind(version.WithKind(r.Kind + "List"))
			err := world.client.List(t.Context(), &list)
			if meta.IsNoMatchError(err) || apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
				continue // it went meanwhile
			}
			require.NoError(t, err, r.Name)
			for j := range list.Items {
				if o := &list.Items[j]; wanted(o) {
					out = append(out, fmt.Sprintf("%s %s/%s", r.Name, o.Namespace, o.Name))
				}
			}
		}
	}
	return out
}

func ofTheMesh(o *metav1.PartialObjectMetadata) bool {
	const mark = "fairway"
	return strings.Contains(o.Name, mark) || o.Labels[names.LabelManagedBy] == names.ManagedBy ||
		o.Labels["app.kubernetes.io/part-of"] == mark || ownedByAMesh(o) ||
		slices.ContainsFunc(o.Finalizers, func(f string) bool { return strings.Contains(f, mark) })
}

func ownedByAMesh(o *metav1.PartialObjectMetadata) bool {
	return slices.ContainsFunc(o.OwnerReferences, func(r metav1.OwnerReference) bool {
		return strings.HasPrefix(r.APIVersion, names.Domain+"/")
	})
}
