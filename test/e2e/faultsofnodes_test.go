// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"context"
	"crypto/x509"
	"fmt"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// TestNothingIsCutByTheCluster: what the mesh stands on goes, and comes back. This is done to the dev cluster, and
// takes minutes (make test-faults).
func TestNothingIsCutByTheCluster(t *testing.T) {
	newLoaded(t).during(
		fault{what: "nodes drained of a waypoint", happens: drained},
		fault{what: "kubelets killed", happens: func(s *loaded, _ int) { s.killedOnNodes("kubelet") }},
		fault{what: "containerds killed", happens: func(s *loaded, _ int) { s.killedOnNodes("containerd") }},
		fault{what: "links down for 5 s", happens: func(s *loaded, _ int) {
			for _, node := range nodeNames(s.t) {
				inDevCluster(s.t, "lan", "ip link set "+node+" down; sleep 5; ip link set "+node+" up")
				s.reachable()
			}
		}},
		fault{what: "API server down for a minute", happens: func(s *loaded, _ int) {
			s.withoutAPIServer(func() {})
		}},
		fault{what: "Services dialled first while the API server is down", happens: dialledWithoutAPIServer},
		fault{what: "API server down for a minute, and node agents killed", happens: func(s *loaded, _ int) {
			pods, err := component(s.t.Context(), names.SystemNamespace, names.ComponentNode)
			require.NoError(s.t, err)
			nodes := nodeNames(s.t)
			s.withoutAPIServer(func() {
				for _, node := range nodes {
					s.killAgentsOf(node, pods)
				}
			})
			for i := range pods {
				s.hasAnotherAgent(&pods[i])
			}
		}},
	)
}

// withoutAPIServer has it down for a minute, and does something early in it.
func (s *loaded) withoutAPIServer(meanwhile func()) {
	s.t.Helper()
	var g errgroup.Group
	g.Go(func() error {
		return devCluster(s.t, "node1", "for n in $(seq 120); do pkill -KILL -x kube-apiserver; sleep 0.5; done")
	})
	eventually.Passes(s.t, "the API server is down", func(look require.TestingT) {
		_, err := world.clientset.Discovery().ServerVersion()
		require.Error(look, err)
	})
	meanwhile()
	require.NoError(s.t, g.Wait())
	s.worksAgain()
}

// inDevCluster runs a script in a node of the dev cluster, or in the network that joins them.
func inDevCluster(t *testing.T, where, script string) {
	t.Helper()
	require.NoError(t, devCluster(t, where, script))
}

func devCluster(t *testing.T, where, script string) error {
	if out, err := devClusterCommand(t, where, script).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", script, err, out)
	}
	return nil
}

func devClusterCommand(t *testing.T, where, script string) *exec.Cmd {
	return devClusterCommandWithin(t.Context(), where, script)
}

func devClusterCommandWithin(ctx context.Context, where, script string) *exec.Cmd {
	return exec.CommandContext(ctx, "../../hack/devcluster/devcluster", "in", where, "sh", "-c", script)
}

func nodeNames(t *testing.T) (out []string) {
	t.Helper()
	var nodes corev1.NodeList
	require.NoError(t, world.client.List(t.Context(), &nodes))
	for i := range nodes.Items {
		out = append(out, nodes.Items[i].Name)
	}
	return out
}

// killedOnNodes kills a daemon of each node, and waits until they do their work again.
func (s *loaded) killedOnNodes(daemon string) {
	s.t.Helper()
	for _, node := range nodeNames(s.t) {
		inDevCluster(s.t, node, "pkill -KILL -x "+daemon)
	}
	s.worksAgain()
}

// reachable waits until the API server reaches the nodes.
func (s *loaded) reachable() {
	s.t.Helper()
	for _, way := range loadedWays {
		eventually.PassesWithin(s.t, 3*time.Minute, "load-"+way+" is reached", func(look require.TestingT) {
			_, err := s.exec(s.t.Context(), "load-"+way, "get", "--timeout=1s", "http://127.0.0.1:8090/")
			require.NoError(look, err)
		})
	}
}

// worksAgain waits until the cluster starts pods, and what runs is ready.
func (s *loaded) worksAgain() {
	s.t.Helper()
	s.reachable()
	for _, replicas := range []int32{4, 2} {
		// The cluster's controllers have to find back to work, too.
		s.scaleWithin(3*time.Minute, "web", replicas)
	}
	var waypoint appsv1.Deployment
	key := client.ObjectKey{Namespace: s.name, Name: loadedWaypoint}
	require.NoError(s.t, world.client.Get(s.t.Context(), key, &waypoint))
	s.rolledOut(loadedWaypoint, func(*appsv1.Deployment) bool { return true })
	nodesRolledOut(s.t)
	operatorPods(s.t)
}

// waypointPods are those of the waypoint, whatever they do.
func (s *loaded) waypointPods() []corev1.Pod {
	s.t.Helper()
	pods, err := component(s.t.Context(), s.name, names.ComponentWaypoint)
	require.NoError(s.t, err)
	return pods
}

// drained takes the waypoint from one node after the other as `kubectl drain` does.
func drained(s *loaded, _ int) {
	for _, name := range nodeNames(s.t) {
		cordon := func(on bool) {
			node := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: name}}
			patch := client.RawPatch(types.MergePatchType, fmt.Appendf(nil, `{"spec":{"unschedulable":%t}}`, on))
			require.NoError(s.t, world.client.Patch(lasting(s.t), node, patch))
		}
		s.t.Cleanup(func() { cordon(false) })
		cordon(true)
		for _, p := range s.waypointPods() {
			if p.Spec.NodeName != name {
				continue
			}
			eventually.PassesWithin(s.t, 2*time.Minute, "the budget lets "+p.Name+" go", func(look require.TestingT) {
				require.NoError(look, world.client.SubResource("eviction").Create(s.t.Context(), &p, &policyv1.Eviction{}))
			})
		}
		eventually.PassesWithin(s.t, 2*time.Minute, "nothing of the waypoint is left on "+name, func(look require.TestingT) {
			for _, p := range s.waypointPods() {
				require.NotEqual(look, name, p.Spec.NodeName)
			}
		})
		s.rolledOut(loadedWaypoint, func(*appsv1.Deployment) bool { return true })
		cordon(false)
	}
}

// dialledWithoutAPIServer: pods of each node dial Services that no proxy knows yet, when the API server has been down
// for longer than any lease.
func dialledWithoutAPIServer(s *loaded, round int) {
	const after, lease = 50 * time.Second, 15 * time.Second
	var loads []string
	for _, node := range nodeNames(s.t) {
		load := fmt.Sprintf("late-%s-%d", node, round)
		fresh := s.service(load, "web", through(names.UseWaypointNone))
		s.load(load, []string{"--kinds=new", "--http=" + fresh.Spec.ClusterIP + ":80", "--after=" + after.String()},
			onNode(node))
		loads = append(loads, "load-"+load)
	}
	s.captured(loads...)
	var down time.Time
	s.withoutAPIServer(func() { down = time.Now() })
	up := time.Now()
	for _, load := range loads {
		for _, r := range s.resultsOf(load) {
			began := r.Started.Add(after)
			require.Greater(s.t, began, down.Add(lease), "it dialled before a leader would have lost its lease")
			require.Less(s.t, began, up)
			require.NotZero(s.t, r.Done)
			require.Zero(s.t, r.Failed, "%v", r.Failures)
			require.Less(s.t, r.LongestSeconds, impatience.Seconds())
		}
		s.goes(load)
	}
}

// nodesWith changes Mesh.spec.node in what each Envoy is started with, and waits until all have been replaced.
func (s *loaded) nodesWith(change string) {
	s.t.Helper()
	generation := func(look require.TestingT) int64 {
		d := nodeProxies()
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(d), d))
		return d.Generation
	}
	before := generation(s.t)
	patchMesh(s.t, `{"spec":{"node":`+change+`}}`)
	eventually.Passes(s.t, "the DaemonSet is changed", func(look require.TestingT) {
		require.Greater(look, generation(look), before)
	})
	nodesRolledOut(s.t)
}

// changeCA has another CA sign, and then the mesh's own again, with roots of their own. Each time all proxies are
// replaced, so that each identity is one of the new CA's while others are still of the old one.
func (s *loaded) changeCA() {
	s.t.Helper()
	certs := certManager(s.t)
	issuer := certs.issuer(s.t)
	keepCertificates(s.t)
	signs := func(who string, root *x509.Certificate) {
		var waypoints []*corev1.Pod
		for _, p := range s.waypointPods() {
			waypoints = append(waypoints, &p)
		}
		refreshTrust(s.t, waypoints, root)
		announced(s.t, root)
		certificatesSay(s.t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, "signed by the CA from "+who)
		rollOut(s.t, nodeProxies())
		nodesRolledOut(s.t)
		s.rollWaypoint(root.SerialNumber.String())
	}
	before := trustBundle(s.t)
	setIssuer(s.t, issuer.name)
	certificatesSay(s.t, metav1.ConditionTrue, v1alpha1.MeshReasonIssued, issuer.name)
	signs("cert-manager", issuer.root)
	before = append(before, issuer.root)
	setIssuer(s.t, "")
	signs("built-in", rootBesides(s.t, before))
}

const containerAgent = "agent"

// killAgents kills the agents of a node's proxy and of the waypoint's there, and nothing else of their pods, on one
// node after the other. Kubelet starts them again, later each time.
func (s *loaded) killAgents() {
	s.t.Helper()
	pods, err := component(s.t.Context(), names.SystemNamespace, names.ComponentNode)
	require.NoError(s.t, err)
	pods = append(pods, s.waypointPods()...)
	for _, node := range nodeNames(s.t) {
		for _, p := range s.killAgentsOf(node, pods) {
			s.hasAnotherAgent(&p)
		}
	}
}

// killAgentsOf a node, among those of pods, and return the pods as they were.
func (s *loaded) killAgentsOf(node string, pods []corev1.Pod) []corev1.Pod {
	s.t.Helper()
	here := slices.DeleteFunc(slices.Clone(pods), func(p corev1.Pod) bool { return p.Spec.NodeName != node })
	var ids []string
	for i := range here {
		ids = append(ids, strings.TrimPrefix(agentOf(s.t, &here[i]).ContainerID, "containerd://"))
	}
	inDevCluster(s.t, node,
		"for id in "+strings.Join(ids, " ")+"; do ctr -n k8s.io tasks kill --signal SIGKILL $id || exit; done")
	return here
}

// hasAnotherAgent waits until a pod is ready with another agent than it had.
func (s *loaded) hasAnotherAgent(had *corev1.Pod) {
	s.t.Helper()
	restarts := agentOf(s.t, had).RestartCount
	eventually.PassesWithin(s.t, 6*time.Minute, had.Name+" is ready with another agent", func(look require.TestingT) {
		p := &corev1.Pod{}
		require.NoError(look, world.client.Get(s.t.Context(), client.ObjectKeyFromObject(had), p))
		require.Greater(look, agentOf(look, p).RestartCount, restarts)
		require.True(look, podReady(p))
	})
}

func agentOf(look require.TestingT, p *corev1.Pod) *corev1.ContainerStatus {
	for i := range p.Status.ContainerStatuses {
		if c := &p.Status.ContainerStatuses[i]; c.Name == containerAgent {
			return c
		}
	}
	require.Fail(look, "no agent in "+p.Name)
	return nil
}
