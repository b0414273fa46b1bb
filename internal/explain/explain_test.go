// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"net/netip"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
	gwv1beta1 "sigs.k8s.io/gateway-api/apis/v1beta1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// bookshop is a namespace where only shop may call reviews, only GET, and nothing else is allowed.
func bookshop(t *testing.T) *Mesh {
	text, err := os.ReadFile("testdata/bookshop.yaml")
	require.NoError(t, err)
	return newMesh(objects(t, string(text)))
}

// objects of some YAML.
func objects(t *testing.T, text string) (out []client.Object) {
	t.Helper()
	scheme := runtime.NewScheme()
	for _, add := range []func(*runtime.Scheme) error{
		corev1.AddToScheme, discoveryv1.AddToScheme, gwv1.Install, v1alpha1.AddToScheme,
	} {
		require.NoError(t, add(scheme))
	}
	for doc := range strings.SplitSeq(text, "\n---\n") {
		o, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode([]byte(doc), nil, nil)
		require.NoError(t, err, "%s", doc)
		out = append(out, o.(client.Object))
	}
	return out
}

// add what some YAML says.
func (m *Mesh) add(t *testing.T, text string) {
	t.Helper()
	for _, o := range objects(t, text) {
		require.NoError(t, m.store.Set(o))
	}
}

func in(name string) types.NamespacedName {
	return types.NamespacedName{Namespace: "bookshop", Name: name}
}

// TestAWaypointThatIsNotReady: whom policies would let in is refused all the same, where nobody could ask them.
func TestAWaypointThatIsNotReady(t *testing.T) {
	m := bookshop(t)
	q := Question{Account: in("shop"), Service: in("reviews"), Request: &Request{Method: "GET", Path: "/reviews/1"}}
	a, err := m.Ask(q)
	require.NoError(t, err)
	require.Equal(t, Allowed, a.Verdict)
	m.add(t, `
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: fairway-waypoint, namespace: bookshop, labels: {kubernetes.io/service-name: fairway-waypoint}}
addressType: IPv4
ports: [{name: mesh, port: 15008}]
endpoints:
- {addresses: [10.200.1.9], conditions: {ready: false}, nodeName: node1}`)
	a, err = m.Ask(q)
	require.NoError(t, err)
	require.Equal(t, Denied, a.Verdict)
	require.Len(t, a.Steps, 1)
	require.Contains(t, a.Steps[0].Reason, "no proxy of it is ready")
}

func TestTheBookshop(t *testing.T) {
	m := bookshop(t)
	read, write := &Request{Method: "GET", Path: "/reviews/1"}, &Request{Method: "POST", Path: "/reviews"}
	for name, tc := range map[string]struct {
		question Question
		want     Verdict
		last     string
		steps    int
	}{
		"shop reads": {
			Question{Account: in("shop"), Service: in("reviews"), Request: read}, Allowed, "has decided already", 2,
		},
		"its pod reads": {Question{Pod: in("shop-0"), Service: in("reviews"), Request: read}, Allowed, "has decided", 2},
		"shop writes": {
			Question{Account: in("shop"), Service: in("reviews"), Request: write}, Denied, "level Application", 1,
		},
		"another reads": {Question{Account: in("other"), Service: in("reviews"), Request: read}, Denied, "level Network", 1},
		"shop connects": {Question{Account: in("shop"), Service: in("reviews")}, Depends, "", 2},
		"past the waypoint": {
			Question{Account: in("shop"), Target: in("reviews-0"), Port: 8080}, Denied, "nobody else may connect", 1,
		},
		"from outside":   {Question{Service: in("reviews"), Request: read}, Denied, "nobody else may connect", 1},
		"something else": {Question{Account: in("shop"), Service: in("other")}, Denied, "nothing-else", 1},
		"another port": {
			Question{Account: in("shop"), Target: in("reviews-0"), Port: 9090}, Allowed, "shop-to-reviews", 1,
		},
		"a stranger's": {
			Question{Account: in("other"), Target: in("reviews-0"), Port: 9090}, Denied, "no ALLOW policy", 1,
		},
		"nobody's at all": {Question{Target: in("shop-0"), Port: 8080}, Denied, "no ALLOW policy", 1},
	} {
		t.Run(name, func(t *testing.T) {
			a, err := m.Ask(tc.question)
			require.NoError(t, err)
			require.Equal(t, tc.want, a.Verdict, "%+v", a.Steps)
			require.Len(t, a.Steps, tc.steps, "%+v", a.Steps)
			require.Contains(t, a.Steps[len(a.Steps)-1].Reason, tc.last)
		})
	}
	for _, q := range []Question{
		{Account: in("shop"), Service: in("nothing")},
		{Account: in("shop"), Service: in("reviews"), Port: 81},
		{Pod: in("nobody"), Service: in("reviews")},
		{Account: in("shop"), Target: in("reviews-0")},
	} {
		_, err := m.Ask(q)
		require.Error(t, err)
	}
}

// TestEndpointsThatWaypointsLeaveOut are nowhere that requests get to.
func TestEndpointsThatWaypointsLeaveOut(t *testing.T) {
	m := bookshop(t)
	q := Question{Account: in("shop"), Service: in("reviews"), Request: &Request{Method: "GET", Path: "/reviews/1"}}
	before, err := m.Ask(q)
	require.NoError(t, err)
	m.add(t, `apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: stale, namespace: bookshop, labels: {kubernetes.io/service-name: reviews}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.200.1.4]}]`)
	after, err := m.Ask(q)
	require.NoError(t, err)
	require.Equal(t, before, after)
}

// TestModesOfPorts: plain text is taken at some ports of a pod only.
func TestModesOfPorts(t *testing.T) {
	m := bookshop(t)
	outside := func(pod string, port uint16) Decision {
		a, err := m.Ask(Question{Target: in(pod), Port: port})
		require.NoError(t, err)
		return a.Steps[len(a.Steps)-1].Decision
	}
	require.NotContains(t, outside("reviews-0", 8080).Reason, "mode Strict")
	require.NoError(t, m.store.Set(&v1alpha1.AuthenticationPolicy{
		ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "strict"},
		Spec: v1alpha1.AuthenticationPolicySpec{
			TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Namespace"}},
			MTLS: &v1alpha1.MTLSAuthentication{
				Mode: v1alpha1.MTLSModeStrict, Ports: []v1alpha1.MTLSPort{{Port: 9090, Mode: v1alpha1.MTLSModePermissive}},
			},
		},
	}))
	require.Equal(t, Denied, outside("reviews-0", 8080).Verdict)
	require.Contains(t, outside("reviews-0", 8080).Reason, "mode Strict")
	require.NotContains(t, outside("reviews-0", 9090).Reason, "mode Strict", "policies on who may come in decide there")
}

// TestEndpointsThatWaypointsDontKnow: of a large Service of another namespace a waypoint knows some endpoints, and
// sends requests to no others.
func TestEndpointsThatWaypointsDontKnow(t *testing.T) {
	slice := func(endpoints int) *discoveryv1.EndpointSlice {
		out := &discoveryv1.EndpointSlice{
			ObjectMeta: metav1.ObjectMeta{
				Namespace: "far", Name: "large", Labels: map[string]string{discoveryv1.LabelServiceName: "large"},
			},
			AddressType: discoveryv1.AddressTypeIPv4,
			Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		}
		for n := range endpoints {
			out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{netip.AddrFrom4([4]byte{10, 210, byte(n >> 8), byte(n)}).String()},
			})
		}
		return out
	}
	asks := func(endpoints int) int {
		m := bookshop(t)
		m.add(t, `apiVersion: v1
kind: Namespace
metadata: {name: far, labels: {fairway.dev/mesh: enabled}}
---
apiVersion: v1
kind: Service
metadata: {name: large, namespace: far}
spec:
  clusterIP: 10.96.0.99
  clusterIPs: [10.96.0.99]
  ports: [{name: http, port: 80, targetPort: 8080}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: reviews, namespace: bookshop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules: [{backendRefs: [{name: large, namespace: far, port: 80}]}]`)
		require.NoError(t, m.store.Set(&gwv1beta1.ReferenceGrant{
			ObjectMeta: metav1.ObjectMeta{Namespace: "far", Name: "bookshop"},
			Spec: gwv1beta1.ReferenceGrantSpec{
				From: []gwv1beta1.ReferenceGrantFrom{{Group: gwv1.GroupName, Kind: "HTTPRoute", Namespace: "bookshop"}},
				To:   []gwv1beta1.ReferenceGrantTo{{Kind: "Service"}},
			},
		}))
		require.NoError(t, m.store.Set(slice(endpoints)))
		a, err := m.Ask(Question{
			Account: in("shop"), Service: in("reviews"), Request: &Request{Method: "GET", Path: "/reviews/1"},
		})
		require.NoError(t, err)
		require.Equal(t, Allowed, a.Verdict)
		return len(a.Steps) - 1
	}
	require.Equal(t, 10, asks(10))
	require.Equal(t, ingest.MostEndpointsOfForeign, asks(2*ingest.MostEndpointsOfForeign))
}
