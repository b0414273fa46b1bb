// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

import (
	"fmt"
	"net/http"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/rest"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

// hostile is what somebody has who took over the node of one pod, and a pod of another node that they are after.
type hostile struct {
	*space
	node        string
	own, victim corev1.Pod
	// kubelet and agent are clients with the node's credentials.
	kubelet, agent client.Client
	agentPod       *corev1.Pod
}

func newHostile(t *testing.T) hostile {
	h := hostile{space: enrolled(t)}
	h.client("client")
	h.server("victim", podLabel(names.LabelMTLSMode, names.MTLSStrict))
	h.service("victim", "victim")
	h.server("own", apartFrom("victim"))
	h.captured("client", "victim", "own")
	h.own, h.victim = h.pod("own"), h.pod("victim")
	h.node = h.own.Spec.NodeName
	h.agentPod = nodePods(t)[h.node]

	// A kubelet's certificate says these names, and nothing more.
	as := rest.CopyConfig(world.config)
	as.Impersonate = rest.ImpersonationConfig{UserName: "system:node:" + h.node, Groups: []string{
		"system:nodes", "system:authenticated",
	}}
	var err error
	h.kubelet, err = client.New(as, client.Options{Scheme: world.client.Scheme()})
	require.NoError(t, err)
	as = rest.AnonymousClientConfig(world.config)
	as.BearerToken = h.tokenOf(h.agentPod)
	h.agent, err = client.New(as, client.Options{Scheme: world.client.Scheme()})
	require.NoError(t, err)
	return h
}

// tokenOf a pod, as its kubelet gets it.
func (h hostile) tokenOf(pod *corev1.Pod, audiences ...string) string {
	r, err := h.askToken(pod, &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
	}, audiences...)
	require.NoError(h.t, err)
	return r.Status.Token
}

func (h hostile) askToken(
	pod *corev1.Pod, bound *authenticationv1.BoundObjectReference, audiences ...string,
) (*authenticationv1.TokenRequest, error) {
	account := &corev1.ServiceAccount{
		ObjectMeta: metav1.ObjectMeta{Namespace: pod.Namespace, Name: pod.Spec.ServiceAccountName},
	}
	r := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		Audiences: audiences, BoundObjectRef: bound,
	}}
	return r, h.kubelet.SubResource("token").Create(h.t.Context(), account, r)
}

func statusPatch(patch string, args ...any) client.Patch {
	return client.RawPatch("application/merge-patch+json", fmt.Appendf(nil, `{"status":`+patch+`}`, args...))
}

// mirror of a static pod, as a node may make it in any namespace.
func (h hostile) mirror(change ...func(*corev1.Pod)) *corev1.Pod {
	node := &corev1.Node{}
	require.NoError(h.t, world.client.Get(h.t.Context(), client.ObjectKey{Name: h.node}, node))
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Namespace: h.name, Name: "mirror", Labels: map[string]string{"app": "victim"},
			Annotations: map[string]string{names.AnnotationMirror: "x"},
			OwnerReferences: []metav1.OwnerReference{
				{APIVersion: "v1", Kind: "Node", Name: h.node, UID: node.UID, Controller: new(true)},
			},
		},
		Spec: corev1.PodSpec{NodeName: h.node, Containers: []corev1.Container{{
			Name: "x", Image: "x", Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
		}}},
	}
	for _, c := range change {
		c(p)
	}
	return p
}

// A node that was taken over gets no further than its own pods.
func TestAHostileNode(t *testing.T) {
	h := newHostile(t)
	ctx := t.Context()
	proxies := nodePods(t)
	other := proxies[h.victim.Spec.NodeName]
	key := client.ObjectKeyFromObject(&h.victim)
	ca := client.ObjectKey{Namespace: names.SystemNamespace, Name: names.CASecret}
	captured := `{"conditions":[{"type":"` + v1alpha1.PodConditionCaptured + `","status":"False"}]}`
	ofOther := client.MatchingFields{"spec.nodeName": h.victim.Spec.NodeName}
	_, unbound := h.askToken(h.agentPod, nil, names.TokenAudience)
	_, others := h.askToken(other, &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: other.Name,
		UID: other.UID,
	})
	_, replayed := h.askToken(&h.own, &authenticationv1.BoundObjectReference{
		Kind: "Pod", APIVersion: "v1", Name: h.own.Name, UID: h.own.UID,
	}, names.TokenAudience)
	for what, err := range map[string]error{
		"all pods":                        h.kubelet.List(ctx, &corev1.PodList{}),
		"another node's pods":             h.kubelet.List(ctx, &corev1.PodList{}, ofOther),
		"a pod of another node":           h.kubelet.Get(ctx, key, &corev1.Pod{}),
		"the CA":                          h.kubelet.Get(ctx, ca, &corev1.Secret{}),
		"a token without a pod":           unbound,
		"a token of another node's agent": others,
		"a token for the mesh":            replayed,
		"the status of another's pod":     h.kubelet.Status().Patch(ctx, h.victim.DeepCopy(), statusPatch(captured)),
		"a mirror with an account": h.kubelet.Create(
			ctx, h.mirror(func(p *corev1.Pod) { p.Spec.ServiceAccountName = "victim" })),
		"a mirror on another node": h.kubelet.Create(
			ctx, h.mirror(func(p *corev1.Pod) { p.Spec.NodeName = other.Spec.NodeName })),
		"a mirror of a waypoint's owner": h.kubelet.Create(
			ctx, h.mirror(func(p *corev1.Pod) { p.OwnerReferences[0].Kind = "ReplicaSet" })),
		"the agent: all pods":      h.agent.List(ctx, &corev1.PodList{}),
		"the agent: the CA":        h.agent.Get(ctx, ca, &corev1.Secret{}),
		"the agent: another's pod": h.agent.Status().Patch(ctx, h.victim.DeepCopy(), statusPatch(captured)),
		"the agent: an address of its own": h.agent.Status().Patch(ctx, h.own.DeepCopy(),
			statusPatch(`{"podIP":"203.0.113.7"}`)),
	} {
		require.True(t, apierrors.IsForbidden(err), "%s: %v", what, err)
	}
	bearer, config := h.tokenOf(h.agentPod, names.TokenAudience), operatorTLS(t)
	code, body := sign(t, config, bearer, identityOf(h.space, "own"))
	require.Equal(t, http.StatusOK, code, body)
	code, body = sign(t, config, bearer, identityOf(h.space, "victim"))
	require.Equal(t, http.StatusForbidden, code, body)
}

// A node that was taken over may make mirrors of static pods, with any label and any address. No connection to
// another's Service goes there.
func TestAHostileNodeServesNobodyElsesService(t *testing.T) {
	h := newHostile(t)
	url := "http://" + h.host("victim")
	h.answers("client", url, "victim")
	traffic := h.steady("client", url)
	// A pod of the node answers there, in plaintext. The node's own kubelet, which is honest, takes each mirror away soon.
	serving := statusPatch(
		`{"phase":"Running","podIP":%[1]q,"podIPs":[{"ip":%[1]q}],"conditions":[{"type":"Ready","status":"True"}]}`,
		h.own.Status.PodIP)
	// Each time is short, so it is watched for, not looked for.
	seen := h.endpoint("victim", h.own.Status.PodIP)
	eventually.Within(t, 2*eventually.Patience, "the cluster lets the mirror be an endpoint", func() error {
		m := h.mirror()
		if err := h.kubelet.Create(t.Context(), m); err == nil || apierrors.IsAlreadyExists(err) {
			require.NoError(t, client.IgnoreNotFound(h.kubelet.Status().Patch(t.Context(), m, serving)))
		}
		if n := seen.Load(); n < 10 {
			return fmt.Errorf("it was one %d times", n)
		}
		return nil
	})
	total := traffic.end()
	require.Empty(t, total.failures(), "%v", total)
	require.Zero(t, total.of("own"), "%v", total)
	require.NotZero(t, total.of("victim"))
}

// endpoint counts, until the test ends, how often an address becomes or stays an endpoint of a Service that serves.
func (s *space) endpoint(service, address string) *atomic.Int32 {
	s.t.Helper()
	watched, err := world.clientset.DiscoveryV1().EndpointSlices(s.name).Watch(s.t.Context(),
		metav1.ListOptions{LabelSelector: discoveryv1.LabelServiceName + "=" + service})
	require.NoError(s.t, err)
	s.t.Cleanup(watched.Stop)
	seen := &atomic.Int32{}
	go func() {
		for e := range watched.ResultChan() {
			slice, _ := e.Object.(*discoveryv1.EndpointSlice)
			if slice != nil && e.Type != watch.Deleted && serves(slice, address) {
				seen.Add(1)
			}
		}
	}()
	return seen
}

func serves(slice *discoveryv1.EndpointSlice, address string) bool {
	return slices.ContainsFunc(slice.Endpoints, func(e discoveryv1.Endpoint) bool {
		return e.Conditions.Ready != nil && *e.Conditions.Ready && slices.Contains(e.Addresses, address)
	})
}
