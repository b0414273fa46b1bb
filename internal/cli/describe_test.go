// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"crypto/x509"
	"encoding/json"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/testca"
)

// bookshop is the namespace of the tests of package explain, whose waypoint serves, with routes and the mesh's own
// pods.
func bookshop(t *testing.T) []client.Object {
	t.Helper()
	text, err := os.ReadFile("../explain/testdata/bookshop.yaml")
	require.NoError(t, err)
	scheme, err := newScheme()
	require.NoError(t, err)
	var out []client.Object
	for doc := range strings.SplitSeq(string(text)+"\n---\n"+bookshopRoutes, "\n---\n") {
		o, _, err := serializer.NewCodecFactory(scheme).UniversalDeserializer().Decode([]byte(doc), nil, nil)
		require.NoError(t, err, "%s", doc)
		out = append(out, o.(client.Object))
	}
	managed := func(p *corev1.Pod) {
		p.Labels[names.LabelManagedBy], p.Labels[names.LabelGatewayName] = names.ManagedBy, names.AutomaticWaypoint
	}
	return append(
		out,
		pod(names.SystemNamespace, "operator-1", "node1", names.ComponentOperator),
		pod(names.SystemNamespace, "node-1", "node1", names.ComponentNode),
		pod("bookshop", "waypoint-1", "node1", names.ComponentWaypoint, managed),
		pod("bookshop", "outside", "node1", "", func(p *corev1.Pod) { p.Labels[names.LabelMesh] = names.MeshDisabled }),
		&appsv1.Deployment{
			ObjectMeta: in("bookshop", object(names.AutomaticWaypoint, map[string]string{
				names.LabelManagedBy: names.ManagedBy,
			})),
			Status: appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 1},
		},
	)
}

const bookshopRoutes = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: split, namespace: bookshop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews}]
  rules:
  - name: main
    backendRefs: [{name: reviews, port: 80, weight: 9}, {name: nobody, port: 80}, {name: other, port: 81}]
status:
  parents:
  - controllerName: fairway.dev/mesh-controller
    parentRef: {group: "", kind: Service, name: reviews}
    conditions:
    - type: Programmed
      status: "True"
      reason: Programmed
      message: all proxies have it
      lastTransitionTime: "2026-01-01T00:00:00Z"
    - type: ResolvedRefs
      status: "False"
      reason: BackendNotFound
      message: there is no Service nobody
      lastTransitionTime: "2026-01-01T00:00:00Z"
    - type: Accepted
      status: "True"
      reason: Accepted
      message: it is in force
      lastTransitionTime: "2026-01-01T00:00:00Z"
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: wrong-port, namespace: bookshop}
spec:
  parentRefs: [{group: "", kind: Service, name: reviews, port: 99}]
  rules: [{backendRefs: [{name: reviews, port: 80}]}]`

// ofBookshop are its proxies, as the operator knows them, and the secrets of its node's.
func ofBookshop(t *testing.T) fakePods {
	t.Helper()
	out := operators(t,
		stream("node/node1", "fairway-system/node-1", introspect.Type{Name: "Cluster", Resources: 2, Acked: 2}),
		stream("waypoint/bookshop/fairway-waypoint", "bookshop/waypoint-1",
			introspect.Type{Name: "Cluster", Resources: 3, Acked: 3},
			introspect.Type{Name: "RouteConfiguration", Resources: 2, Acked: 1, Rejected: 1, Rejections: []introspect.Rejection{
				{Resource: "bookshop/reviews/80", Version: "7", Error: "no such cluster"},
			}}))
	leaf, _ := testca.PEM(t, testca.New(t, "cluster.local").IssueHost("reviews", func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = testNow.Add(-time.Hour), testNow.Add(20*time.Hour)
	}))
	dump := map[string]any{"configs": []any{map[string]any{
		"@type": "type.googleapis.com/envoy.admin.v3.SecretsConfigDump",
		"dynamic_active_secrets": []any{map[string]any{
			"name": "spiffe://cluster.local/ns/bookshop/sa/reviews",
			"secret": map[string]any{"tls_certificate": map[string]any{
				"certificate_chain": map[string]any{"inline_bytes": leaf},
			}},
		}},
	}}}
	data, err := json.Marshal(dump)
	require.NoError(t, err)
	out["fairway-system/node-1"+introspect.PathEnvoy+"config_dump"] = string(data)
	return out
}

func describes(t *testing.T, c *cluster, given ...string) []byte {
	t.Helper()
	s, err := subjectOf(given)
	require.NoError(t, err)
	d, err := describe(t.Context(), c, names.SystemNamespace, s)
	require.NoError(t, err)
	var out bytes.Buffer
	table := &table{out: &out}
	d.draw(table, testNow)
	require.NoError(t, table.err)
	require.NoError(t, (&outputFlag{"json"}).print(&bytes.Buffer{}, d, nil))
	return out.Bytes()
}

func TestDescribe(t *testing.T) {
	c := fakeCluster(t, ofBookshop(t), bookshop(t)...)
	for file, given := range map[string][]string{
		"describe-pod.txt":              {"pod", "bookshop/reviews-0"},
		"describe-pod-outside.txt":      {"po/bookshop/outside"},
		"describe-service.txt":          {"svc", "bookshop/reviews"},
		"describe-service-direct.txt":   {"service/bookshop/other"},
		"describe-route.txt":            {"httproute/bookshop/split"},
		"describe-route-unanswered.txt": {"route", "bookshop/wrong-port"},
	} {
		t.Run(file, func(t *testing.T) { golden(t, file, describes(t, c, given...)) })
	}
}

// withinNamespace leaves the rights of who may view one namespace.
func withinNamespace(c *cluster, namespace string) *cluster {
	err := apierrors.NewForbidden(schema.GroupResource{Resource: "things"}, "", errors.New("no rights"))
	out := *c
	out.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		Get: func(
			ctx context.Context, w client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption,
		) error {
			if _, is := o.(*corev1.Namespace); key.Namespace != namespace && (!is || key.Name != namespace) {
				return err
			}
			return w.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, w client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if (&client.ListOptions{}).ApplyOptions(opts).Namespace != namespace {
				return err
			}
			return w.List(ctx, l, opts...)
		},
	})
	return &out
}

// Who may view the namespace alone sees what is in it, and is told what is not: never that there is none.
func TestDescribeForTheUsersOfANamespace(t *testing.T) {
	c := withinNamespace(fakeCluster(t, deniedReach{new(int)}, bookshop(t)...), "bookshop")
	golden(t, "describe-pod-of-a-user.txt", describes(t, c, "pod", "bookshop/reviews-0"))
	golden(t, "describe-service-of-a-user.txt", describes(t, c, "service", "bookshop/reviews"))
	golden(t, "describe-route-of-a-user.txt", describes(t, c, "route", "bookshop/split"))
}

func TestDescribeWhatIsNotThere(t *testing.T) {
	c := fakeCluster(t, ofBookshop(t), bookshop(t)...)
	for _, given := range [][]string{{"pod", "bookshop/nobody"}, {"svc/bookshop/nobody"}, {"grpcroute/bookshop/split"}} {
		s, err := subjectOf(given)
		require.NoError(t, err)
		_, err = describe(t.Context(), c, names.SystemNamespace, s)
		require.ErrorContains(t, err, "there is no ", "%v", given)
	}
	// Without the right to list routes it is not said that there is none.
	denied := forbidding(c, func(o any) bool { _, is := o.(*gwv1.HTTPRouteList); return is })
	_, err := describe(t.Context(), denied, names.SystemNamespace, subject{
		kind: describeRoute, only: "HTTPRoute", name: types.NamespacedName{Namespace: "bookshop", Name: "split"},
	})
	require.ErrorContains(t, err, "HTTPRoutes could not be asked for: you have no right to")

	both := &gwv1.GRPCRoute{ObjectMeta: in("bookshop", object("split", nil))}
	_, err = describe(t.Context(), fakeCluster(t, nil, append(bookshop(t), both)...), names.SystemNamespace, subject{
		kind: describeRoute, name: types.NamespacedName{Namespace: "bookshop", Name: "split"},
	})
	require.ErrorContains(t, err, "say httproute/split or grpcroute/split")
}

// What could not be listed is unknown, and not none.
func TestDescribeWithoutSomeRights(t *testing.T) {
	c := fakeCluster(t, ofBookshop(t), bookshop(t)...)
	noSlices := forbidding(c, sameType(&discoveryv1.EndpointSliceList{}))
	out := string(describes(t, noSlices, "svc", "bookshop/other"))
	require.Regexp(t, `80 +http +HTTP +- +- +unknown`, out)
	require.Contains(t, out, "Unknown, see below: policies and endpoints")
	require.Contains(t, out, "you have no right to read EndpointSlices")
	require.Contains(t, string(describes(t, noSlices, "pod", "bookshop/reviews-0")), "Services: unknown, see below")
	require.Regexp(t, `Service bookshop/reviews:80 +9 +unknown`, string(describes(t, noSlices, "route", "bookshop/split")))

	noPolicies := forbidding(c, sameType(&v1alpha1.AuthorizationPolicyList{}))
	out = string(describes(t, noPolicies, "pod", "bookshop/reviews-0"))
	require.Contains(t, out, "members of the mesh: unknown, for not all policies could be asked for")
	require.NotContains(t, out, "no policy is in force")
	require.Contains(t, string(describes(t, noPolicies, "svc", "bookshop/reviews")), "Unknown, see below: policies")
}

// An endpoint that is no pod's of the mesh is told apart.
func TestDescribeEndpointsOutsideOfTheMesh(t *testing.T) {
	slice := &discoveryv1.EndpointSlice{
		ObjectMeta:  in("bookshop", object("strangers", map[string]string{discoveryv1.LabelServiceName: "other"})),
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: new("http"), Port: new(int32(8080))}},
		Endpoints:   []discoveryv1.Endpoint{{Addresses: []string{"192.0.2.1"}}},
	}
	out := string(describes(t, fakeCluster(t, nil, append(bookshop(t), slice)...), "svc", "bookshop/other"))
	require.Contains(t, out, "2, 1 in the mesh")
	require.Regexp(t, `192\.0\.2\.1:8080 +- +no`, out)
}

func TestSubjects(t *testing.T) {
	named := func(namespace, name string) types.NamespacedName {
		return types.NamespacedName{Namespace: namespace, Name: name}
	}
	for _, c := range []struct {
		given []string
		want  subject
		says  string
	}{
		{[]string{"pod", "a"}, subject{describePod, "", named("", "a")}, ""},
		{[]string{"svc/a"}, subject{describeService, "", named("", "a")}, ""},
		{[]string{"HTTPRoute", "n/a"}, subject{describeRoute, "HTTPRoute", named("n", "a")}, ""},
		{[]string{"grpcroute/n/a"}, subject{describeRoute, "GRPCRoute", named("n", "a")}, ""},
		{[]string{"pod"}, subject{}, "say which one"},
		{[]string{"pod/"}, subject{}, "say which one"},
		{[]string{"pod", "a/b/c"}, subject{}, "want NAME or NAMESPACE/NAME"},
		{[]string{"deployment", "a"}, subject{}, "want pod, service, route"},
	} {
		got, err := subjectOf(c.given)
		if c.says != "" {
			require.ErrorContains(t, err, c.says, "%v", c.given)
			continue
		}
		require.NoError(t, err)
		require.Equal(t, c.want, got)
	}
}

// What is being deleted says so first, and nothing of access that will not hold.
func TestDescribeWhatIsBeingDeleted(t *testing.T) {
	since := &metav1.Time{Time: testNow.Add(-time.Minute)}
	objects := bookshop(t)
	for _, o := range objects {
		switch o.(type) {
		case *corev1.Pod, *corev1.Service, *gwv1.HTTPRoute:
			o.SetDeletionTimestamp(since)
			o.SetFinalizers([]string{"test.example/keeps"})
		}
	}
	c := fakeCluster(t, fakePods{}, objects...)
	for _, of := range []string{"pod", "service", "route"} {
		name := map[string]string{"pod": "reviews-0", "service": "reviews", "route": "split"}[of]
		s, err := subjectOf([]string{of, "bookshop/" + name})
		require.NoError(t, err)
		d, err := describe(t.Context(), c, names.SystemNamespace, s)
		require.NoError(t, err)
		var out bytes.Buffer
		table := &table{out: &out}
		d.draw(table, testNow)
		require.NoError(t, table.err)
		require.Regexp(t, `\n  Being deleted +since 60s; it is there while its finalizers are: test.example/keeps\n`, out.String())
		require.NotContains(t, out.String(), "Who may connect")
	}
	grace := pod("shop", "x", "a", "", func(p *corev1.Pod) {
		p.DeletionTimestamp, p.DeletionGracePeriodSeconds = &metav1.Time{Time: testNow}, new(int64(30))
	})
	require.Equal(t, testNow.Add(-30*time.Second), *deletionOf(grace).BeingDeletedSince, "when it was asked for")
}
