// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/util/yaml"

	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The tests of this file are about NetworkPolicies: Fairway's own, and those that its users are told to write.

// enableNetworkPolicy must be set, because most networks for tests take NetworkPolicies and do nothing about them.
const enableNetworkPolicy = "FAIRWAY_E2E_NETWORKPOLICY"

func needsEnforcement(t *testing.T) {
	t.Helper()
	if os.Getenv(enableNetworkPolicy) == "" {
		t.Skipf("needs a network that enforces NetworkPolicies: make test-networkpolicy, or set %s=1", enableNetworkPolicy)
	}
}

// connects waits until connections of a pod outside of the mesh to a port, where something listens, are taken or, where
// they are to be stopped, end in silence or are refused: enforcers differ, and take a moment.
func (s *space) connects(from string, want bool, ip string, port int) {
	s.t.Helper()
	eventually.Passes(s.t, fmt.Sprintf("%s to port %d", from, port), func(look require.TestingT) {
		_, err := s.exec(s.t.Context(), from, "tcp-send", "--timeout=1s", fmt.Sprintf("%s:%d", ip, port), "hello")
		stopped := err != nil && strings.Contains(err.Error(), "dial tcp")
		require.Equal(look, want, !stopped, "%v", err)
	})
}

// stopped waits until none of several requests of a pod of the mesh is answered by the server of a URL, and sees that
// it stays so. Its node proxy takes the connections, and reaches nobody.
func (s *space) stopped(from, url string) {
	s.t.Helper()
	attempt := func(look require.TestingT) {
		out, err := s.exec(s.t.Context(), from, "get", "-n", "5", "-c", "5", "--no-keepalive", "--timeout=3s", url)
		got := parseTally(out)
		require.NotEmpty(look, got, "%v: %s", err, out)
		require.Equal(look, got, got.failures())
	}
	eventually.Passes(s.t, fmt.Sprintf("%s to %s", from, url), attempt)
	attempt(s.t)
}

// policies reads NetworkPolicies from YAML and creates them in the space.
func (s *space) policies(manifests string, change ...func(*networkingv1.NetworkPolicy)) {
	s.t.Helper()
	decoder := yaml.NewYAMLOrJSONDecoder(strings.NewReader(manifests), 4096)
	made := 0
	for ; ; made++ {
		p := &networkingv1.NetworkPolicy{}
		err := decoder.Decode(p)
		if errors.Is(err, io.EOF) {
			break
		}
		require.NoError(s.t, err)
		for _, c := range change {
			c(p)
		}
		s.create(p)
	}
	require.NotZero(s.t, made)
}

// documented returns the example of the user's guide that begins with a policy of this name.
func documented(t *testing.T, policy string) string {
	t.Helper()
	guide, err := os.ReadFile("../../docs/user-guide.md")
	require.NoError(t, err)
	for _, block := range strings.Split(string(guide), "```yaml\n")[1:] {
		block, _, _ = strings.Cut(block, "```")
		if first, _, _ := strings.Cut(block, "\n---\n"); strings.Contains(first, "metadata: {name: "+policy+",") {
			return block
		}
	}
	t.Fatalf("docs/user-guide.md has no example %s", policy)
	return ""
}

// elsewhere puts pods on a node other than that one: NetworkPolicies let everything of a pod's own node through.
func elsewhere(t *testing.T, node string) option {
	t.Helper()
	for other := range nodePods(t) {
		if other != node {
			return spec(func(p *corev1.PodSpec) { p.NodeName = other })
		}
	}
	t.Fatal("the cluster has one node only")
	return nil
}

// TestNetworkPolicyOfTheOperator starts replicas behind config/manager/network_policy.yaml: kubelet finds them ready,
// agents reach them, they reach each other, and nobody else does.
func TestNetworkPolicyOfTheOperator(t *testing.T) {
	needsEnforcement(t)
	replaced(t, names.SystemNamespace, names.ComponentOperator, nil)
	operators := operatorPods(t)
	require.Greater(t, len(operators), 1)
	s := newSpace(t)
	s.client("pod")
	for i := range operators {
		o := &operators[i]
		eventually.Passes(t, "replicas reach each other", func(look require.TestingT) {
			said, err := logOf(t.Context(), o)
			require.NoError(look, err)
			require.Contains(look, said, "following a replica's acknowledgements")
		})
		host := fmt.Sprintf("host-%d", i)
		s.client(host, onHostNetwork(18080+i), elsewhere(t, o.Spec.NodeName))
		for port, may := range map[int][]string{
			names.PortXDS:             {"pod", host},
			names.PortCertificates:    {"pod", host},
			names.PortOperatorMetrics: {"pod"},
			names.PortPeers:           nil,
			names.PortOperatorHealth:  nil,
		} {
			for _, from := range []string{"pod", host} {
				s.connects(from, slices.Contains(may, from), o.Status.PodIP, port)
			}
		}
	}
	// Agents reach them: these pods' certificates and endpoints come from the replicas that just began.
	m := enrolled(t)
	m.client("client")
	m.server("server")
	m.service("server", "server")
	m.captured("client", "server")
	begin := since()
	m.answers("client", "http://server/", "server")
	overMTLS(m, begin, m.pod("server"), identityOf(m, "client"), identityOf(m, "server"))
}

func logOf(ctx context.Context, p *corev1.Pod) (string, error) {
	raw, err := world.clientset.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(ctx)
	return string(raw), err
}

// TestNetworkPolicyOfWaypoints starts a waypoint behind the sample.
func TestNetworkPolicyOfWaypoints(t *testing.T) {
	needsEnforcement(t)
	t.Parallel()
	s, collectors, outside := enrolled(t), newSpace(t), newSpace(t)
	sample, err := os.ReadFile("../../config/samples/networkpolicy_waypoint.yaml")
	require.NoError(t, err)
	require.Equal(t, 2, bytes.Count(sample, []byte("monitoring")), "in the comment and in the policy")
	s.policies(strings.ReplaceAll(string(sample), "monitoring", collectors.name))
	s.client("client")
	s.versions("app")
	s.captured("client", "app-v1", "app-v2")
	s.create(httpRoute("app", toService("app"), rule(nil, backend("app-v2"))))
	s.programmed("app")
	s.routed("client", "http://app/", "app-v2")

	waypoints, err := component(t.Context(), s.name, names.ComponentWaypoint)
	require.NoError(t, err)
	require.NotEmpty(t, waypoints)
	ip := waypoints[0].Status.PodIP
	collectors.client("collector")
	outside.client("stranger")
	outside.connects("stranger", false, ip, names.PortAgent)
	outside.connects("stranger", true, ip, names.PortMTLS)
	a, err := collectors.get("collector", fmt.Sprintf("http://%s:%d/metrics", ip, names.PortAgent))
	require.NoError(t, err)
	require.Equal(t, http.StatusOK, a.Status)
}

// TestNetworkPolicyFromBeforeTheMesh holds what the guide says of a policy that names the application's port: members
// are stopped until it names the mesh's, which then stands for all ports of the pod.
func TestNetworkPolicyFromBeforeTheMesh(t *testing.T) {
	needsEnforcement(t)
	t.Parallel()
	s, outside := enrolled(t), newSpace(t)
	const policy = `
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: PORT}
spec:
  podSelector: {matchLabels: {app: server}}
  policyTypes: [Ingress]
  ingress:
  - from: [{podSelector: {matchLabels: {app: client}}}]
    ports: [{port: PORT}]
`
	s.policies(strings.ReplaceAll(strings.ReplaceAll(policy, "name: PORT", "name: application"), "PORT", "8080"))
	s.client("client")
	s.client("other")
	outside.client("stranger")
	// It gets ready: kubelet's probes pass.
	s.server("server", spec(func(p *corev1.PodSpec) {
		second := *p.Containers[0].DeepCopy()
		second.Name, second.Ports, second.ReadinessProbe = "second", nil, nil
		second.Args = []string{"serve", "--name=second", "--port=9090"}
		p.Containers = append(p.Containers, second)
	}))
	s.service("server", "server")
	s.captured("client", "other", "server")
	ip := s.pod("server").Status.PodIP
	outside.connects("stranger", false, ip, 8080)
	s.stopped("client", "http://server/")

	s.policies(strings.ReplaceAll(strings.ReplaceAll(policy, "name: PORT", "name: mesh"), "PORT", "15008"))
	begin := since()
	s.answers("client", "http://server/", "server")
	overMTLS(s, begin, s.pod("server"), identityOf(s, "client"), identityOf(s, "server"))
	s.stopped("other", "http://server/")
	outside.connects("stranger", false, ip, names.PortMTLS)
	a, err := s.get("client", "http://"+ip+":9090/")
	require.NoError(t, err)
	require.Equal(t, "second", a.Name, "whom the policy lets in reaches every port")
}

// TestNetworkPolicyOfANamespaceThatDenies applies the guide's example: a namespace that denies by default, with a
// caller, a Service, and a waypoint between them.
func TestNetworkPolicyOfANamespaceThatDenies(t *testing.T) {
	needsEnforcement(t)
	t.Parallel()
	s, outside := enrolled(t), enrolled(t)
	s.policies(documented(t, "deny-by-default"))
	s.client("productpage")
	s.client("other")
	s.server("reviews")
	s.service("reviews", "reviews")
	outside.client("stranger")
	outside.captured("stranger")
	s.captured("productpage", "other", "reviews")
	s.answers("productpage", "http://reviews/", "reviews")
	s.stopped("other", "http://reviews/")
	outside.stopped("stranger", "http://"+s.host("reviews")+"/")

	s.create(httpRoute("reviews", toService("reviews"), rule(nil, backend("reviews"))))
	s.programmed("reviews")
	s.routed("productpage", "http://reviews/", "reviews")
	s.routed("other", "http://reviews/", "reviews") // who reaches the waypoint reaches what is behind it
	outside.stopped("stranger", "http://"+s.host("reviews")+"/")
}

// TestNetworkPolicyThatLetsTheWaypointIn applies the guide's example that makes routes hold for everybody.
func TestNetworkPolicyThatLetsTheWaypointIn(t *testing.T) {
	needsEnforcement(t)
	t.Parallel()
	s, outside := enrolled(t), newSpace(t)
	s.policies(documented(t, "reviews-by-waypoint-only"))
	s.client("client")
	outside.client("stranger")
	s.server("reviews")
	s.service("reviews", "reviews")
	s.captured("client", "reviews")
	s.create(httpRoute("reviews", toService("reviews"), rule(nil, backend("reviews"))))
	s.programmed("reviews")
	s.routed("client", "http://reviews/", "reviews")
	ip := s.pod("reviews").Status.PodIP
	s.stopped("client", "http://"+ip+":8080/")
	outside.connects("stranger", false, ip, 8080)
	outside.connects("stranger", false, ip, names.PortMTLS)
}
