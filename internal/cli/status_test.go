// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

func mesh(ready metav1.ConditionStatus, reason, message string) *v1alpha1.Mesh {
	return &v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh},
		Spec: v1alpha1.MeshSpec{
			TrustDomain: "cluster.local", MTLS: v1alpha1.MTLS{Mode: v1alpha1.MTLSModePermissive},
			Outbound: v1alpha1.OutboundAllow,
		},
		Status: v1alpha1.MeshStatus{Conditions: []metav1.Condition{
			{Type: v1alpha1.MeshConditionReady, Status: ready, Reason: reason, Message: message},
		}},
	}
}

// notRenewed is a Mesh that is ready, and won't be.
func notRenewed() *v1alpha1.Mesh {
	m := mesh(metav1.ConditionTrue, "Ready", "")
	m.Status.Conditions = append(m.Status.Conditions, metav1.Condition{
		Type: v1alpha1.MeshConditionCertificatesRenewed, Status: metav1.ConditionFalse, Reason: "IssuerDenied",
		Message: "policy says no",
	})
	return m
}

func object(name string, labels map[string]string) metav1.ObjectMeta {
	return metav1.ObjectMeta{Name: name, Labels: labels}
}

func in(namespace string, m metav1.ObjectMeta) metav1.ObjectMeta {
	m.Namespace = namespace
	return m
}

func routed(name string, conditions ...metav1.Condition) *gwv1.HTTPRoute {
	kind := gwv1.Kind("Service")
	return &gwv1.HTTPRoute{
		ObjectMeta: in("shop", object(name, nil)),
		Status: gwv1.HTTPRouteStatus{RouteStatus: gwv1.RouteStatus{Parents: []gwv1.RouteParentStatus{
			{
				ControllerName: names.MeshController, ParentRef: gwv1.ParentReference{Kind: &kind, Name: "reviews"},
				Conditions: conditions,
			},
			{ControllerName: "someone.else/controller", ParentRef: gwv1.ParentReference{Kind: &kind, Name: "reviews"}},
		}}},
	}
}

// serving is a Service that has an address and a port, as a waypoint requires.
func serving(namespace, name string, labels map[string]string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: in(namespace, object(name, labels)),
		Spec: corev1.ServiceSpec{
			ClusterIP: "10.96.0.7", ClusterIPs: []string{"10.96.0.7"},
			Ports: []corev1.ServicePort{{Name: "http", Port: 80, Protocol: corev1.ProtocolTCP}},
		},
	}
}

// healthyMesh has two nodes, a captured pod and an automatic waypoint with two routes.
func healthyMesh() []client.Object {
	enrolled := map[string]string{names.LabelMesh: names.MeshEnabled}
	labels := map[string]string{names.LabelManagedBy: names.ManagedBy}
	accepted := metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, Reason: "Accepted"}
	return []client.Object{
		mesh(metav1.ConditionTrue, "Ready", "the mesh works"),
		&corev1.Node{ObjectMeta: object("a", nil)},
		&corev1.Node{ObjectMeta: object("b", nil)},
		&corev1.Namespace{ObjectMeta: object("shop", enrolled)},
		&corev1.Namespace{ObjectMeta: object("other", nil)},
		pod(names.SystemNamespace, "operator-1", "a", names.ComponentOperator),
		pod(names.SystemNamespace, "node-a", "a", names.ComponentNode),
		pod(names.SystemNamespace, "node-b", "b", names.ComponentNode),
		pod("shop", "app", "a", "", captured(corev1.ConditionTrue, "Captured", "")),
		pod("shop", "closed", "b", "", captured(corev1.ConditionTrue, "Captured", ""),
			func(p *corev1.Pod) {
				p.Labels[names.LabelOutbound], p.Labels[names.LabelMTLSMode] = names.OutboundDeny, names.MTLSStrict
			}),
		&v1alpha1.AuthenticationPolicy{
			ObjectMeta: in("shop", object("scrape", nil)),
			Spec: v1alpha1.AuthenticationPolicySpec{
				TargetRefs: []v1alpha1.AuthenticationTarget{{Kind: "Pod", Selector: &metav1.LabelSelector{
					MatchLabels: map[string]string{names.LabelOutbound: names.OutboundDeny},
				}}},
				MTLS: &v1alpha1.MTLSAuthentication{Ports: []v1alpha1.MTLSPort{{Port: 9090, Mode: v1alpha1.MTLSModePermissive}}},
			},
			Status: gwv1.PolicyStatus{Ancestors: []gwv1.PolicyAncestorStatus{
				{ControllerName: names.MeshController, Conditions: []metav1.Condition{accepted}},
			}},
		},
		pod("shop", "opted-out", "a", "", func(p *corev1.Pod) { p.Labels[names.LabelMesh] = names.MeshDisabled }),
		pod("shop", "on-the-host", "a", "", func(p *corev1.Pod) { p.Spec.HostNetwork = true }),
		pod("shop", "done", "a", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodSucceeded }),
		pod("other", "stranger", "b", ""),
		pod("shop", "waypoint-1", "b", names.ComponentWaypoint,
			func(p *corev1.Pod) { p.Labels[names.LabelMesh] = names.MeshDisabled }),
		serving("shop", "reviews", nil),
		&gwv1.Gateway{
			ObjectMeta: in("shop", object(names.AutomaticWaypoint, map[string]string{names.LabelAutomatic: "true"})),
			Spec:       gwv1.GatewaySpec{GatewayClassName: names.WaypointClass},
			Status:     gwv1.GatewayStatus{Conditions: []metav1.Condition{{Type: "Programmed", Status: metav1.ConditionTrue}}},
		},
		&gwv1.Gateway{ObjectMeta: in("shop", object("of-another-class", nil))},
		&appsv1.Deployment{
			ObjectMeta: in("shop", object(names.AutomaticWaypoint, labels)),
			Status:     appsv1.DeploymentStatus{Replicas: 1, ReadyReplicas: 1},
		},
		routed("split", accepted),
		routed("broken", accepted, metav1.Condition{
			Type: "ResolvedRefs", Status: metav1.ConditionFalse,
			Reason: "BackendNotFound", Message: "Service nobody\nis missing",
		}),
	}
}

func stream(scope, pod string, types ...introspect.Type) introspect.Proxy {
	return introspect.Proxy{Scope: scope, Pod: pod, Connected: testNow.Add(-time.Hour), Types: types}
}

func operators(t *testing.T, proxies ...introspect.Proxy) fakePods {
	t.Helper()
	data, err := json.Marshal(introspect.Proxies{Proxies: proxies})
	require.NoError(t, err)
	nobody, err := json.Marshal(introspect.Plaintext{Since: testNow.Add(-time.Hour)})
	require.NoError(t, err)
	at := names.SystemNamespace + "/operator-1"
	return fakePods{at + introspect.PathProxies: string(data), at + introspect.PathPlaintext: string(nobody)}
}

func inSync() []introspect.Proxy {
	ok := introspect.Type{Name: "Cluster", Resources: 2, Acked: 2}
	return []introspect.Proxy{
		stream("node/a", "fairway-system/node-a", ok),
		stream("node/b", "fairway-system/node-b", ok),
		stream("waypoint/shop/fairway-waypoint", "shop/waypoint-1", ok),
	}
}

func TestStatusOfAHealthyMesh(t *testing.T) {
	c := fakeCluster(t, operators(t, inSync()...), healthyMesh()...)
	r := collect(t.Context(), c, names.SystemNamespace)
	assert.True(t, r.Healthy, "%v %v", r.Problems, r.Unknown)
	var out bytes.Buffer
	table := &table{out: &out}
	r.draw(table, testNow)
	require.NoError(t, table.err)
	golden(t, "status-healthy.txt", out.Bytes())

	out.Reset()
	require.NoError(t, (&outputFlag{"json"}).print(&out, r, nil))
	golden(t, "status-healthy.json", out.Bytes())
	out.Reset()
	require.NoError(t, (&outputFlag{"yaml"}).print(&out, r, nil))
	assert.Contains(t, out.String(), "healthy: true\n")
}

// replace returns the objects with one put in the place of the object of the same kind and name.
func replace(t *testing.T, objects []client.Object, with ...client.Object) []client.Object {
	t.Helper()
	for _, w := range with {
		found := false
		for i, o := range objects {
			if o.GetNamespace() == w.GetNamespace() && o.GetName() == w.GetName() {
				objects[i], found = w, true
			}
		}
		if !found {
			objects = append(objects, w)
		}
	}
	return objects
}

func TestStatusNamesWhatIsWrong(t *testing.T) {
	rejected := introspect.Type{
		Name: "RouteConfiguration", Resources: 1, Rejected: 1,
		Rejections: []introspect.Rejection{{Resource: "x", Error: "bad\nregex"}},
	}
	for name, c := range map[string]struct {
		objects []client.Object
		reach   func(*testing.T) fakePods
		problem string
		unknown string
	}{
		"no Mesh": {objects: []client.Object{}, problem: `there is no Mesh: create one named "default"`},
		"no operator": {
			objects: []client.Object{mesh(metav1.ConditionTrue, "Ready", "")},
			problem: "no operator runs in namespace fairway-system",
		},
		"the Mesh is not ready": {
			objects: replace(t, healthyMesh(), mesh(metav1.ConditionFalse, "NodesNotReady", "b is missing")),
			problem: "the Mesh is not ready: NodesNotReady: b is missing",
		},
		"certificates that are not renewed": {
			objects: replace(t, healthyMesh(), notRenewed()),
			problem: "certificates are not renewed: IssuerDenied: policy says no",
		},
		"an operator that can't be asked": {
			reach:   func(*testing.T) fakePods { return fakePods{} },
			unknown: "operator fairway-system/operator-1 could not be queried for its proxies: connection refused",
		},
		"a node without a proxy": {
			objects: append(healthyMesh(), &corev1.Node{ObjectMeta: object("c", nil)}),
			problem: "node c has no node proxy",
		},
		"a node proxy that is not ready": {
			objects: replace(t, healthyMesh(), pod(names.SystemNamespace, "node-b", "b", names.ComponentNode,
				func(p *corev1.Pod) {
					p.Status.Conditions = nil
				})),
			problem: "the node proxy of b (pod fairway-system/node-b) is not ready",
		},
		"a pod that was not captured": {
			objects: append(healthyMesh(),
				pod("shop", "lost", "b", "", captured(corev1.ConditionFalse, "NetnsMissing", "no namespace"))),
			problem: "pod shop/lost on node b is not captured: NetnsMissing: no namespace",
		},
		"a proxy without a stream": {
			reach:   func(t *testing.T) fakePods { return operators(t, inSync()[:2]...) },
			problem: "proxy shop/waypoint-1 is not connected to any operator",
		},
		"a proxy without a stream whose agent says why": {
			reach: func(t *testing.T) fakePods {
				pods := operators(t, inSync()[:2]...)
				pods["shop/waypoint-1"+introspect.PathAgent] = `{"operator": {"connected": false, "error": "x509: unknown authority"}}`
				return pods
			},
			problem: "proxy shop/waypoint-1 is not connected to any operator (x509: unknown authority): it keeps",
		},
		"a proxy that rejects": {
			reach: func(t *testing.T) fakePods {
				return operators(t, append(inSync()[:2], stream("waypoint/shop/w", "shop/waypoint-1", rejected))...)
			},
			problem: "proxy shop/waypoint-1 rejects RouteConfiguration x: bad regex",
		},
		"a proxy that doesn't answer": {
			reach: func(t *testing.T) fakePods {
				return operators(t, append(inSync()[:2], stream("waypoint/shop/w", "shop/waypoint-1",
					introspect.Type{Name: "Cluster", Pending: 4}))...)
			},
			problem: "proxy shop/waypoint-1 has not acknowledged 4 resources",
		},
		"a waypoint that is not accepted": {
			objects: replace(t, healthyMesh(), &gwv1.Gateway{
				ObjectMeta: in("shop", object("named", nil)),
				Spec:       gwv1.GatewaySpec{GatewayClassName: names.WaypointClass},
				Status: gwv1.GatewayStatus{Conditions: []metav1.Condition{
					{Type: "Programmed", Status: metav1.ConditionFalse, Reason: "Invalid", Message: "see condition Accepted"},
					{Type: "Accepted", Status: metav1.ConditionFalse, Reason: "InvalidParameters", Message: "no such parameters"},
				}},
			}),
			problem: "waypoint shop/named is not programmed: InvalidParameters: no such parameters",
		},
		"a waypoint that is not programmed": {
			objects: replace(t, healthyMesh(), &gwv1.Gateway{
				ObjectMeta: in("shop", object("named", nil)),
				Spec:       gwv1.GatewaySpec{GatewayClassName: names.WaypointClass},
			}),
			problem: "waypoint shop/named is not programmed: the operator has not processed it yet",
		},
	} {
		t.Run(name, func(t *testing.T) {
			objects, reach := c.objects, operators(t, inSync()...)
			if objects == nil {
				objects = healthyMesh()
			}
			if c.reach != nil {
				reach = c.reach(t)
			}
			r := collect(t.Context(), fakeCluster(t, reach, objects...), names.SystemNamespace)
			assert.False(t, r.Healthy)
			if c.problem != "" {
				assert.Condition(t, func() bool { return containsPrefix(r.Problems, c.problem) }, "%v", r.Problems)
			}
			if c.unknown != "" {
				assert.Contains(t, r.Unknown, c.unknown)
			}
		})
	}
}

func containsPrefix(all []string, prefix string) bool {
	for _, s := range all {
		if len(s) >= len(prefix) && s[:len(prefix)] == prefix {
			return true
		}
	}
	return false
}

func TestStatusWaitsForAProxyToSettle(t *testing.T) {
	pending, settled := operators(
		t, append(inSync()[:2], stream("waypoint/shop/w", "shop/waypoint-1", introspect.Type{Pending: 1}))...),
		operators(t, inSync()...)
	c := fakeCluster(t, nil, healthyMesh()...)
	asked := 0
	c.reach = reachFunc(func() fakePods {
		if asked++; asked == 1 {
			return pending
		}
		return settled
	})
	r := collect(t.Context(), c, names.SystemNamespace)
	assert.True(t, r.Healthy, "%v %v", r.Problems, r.Unknown)
	assert.Equal(t, 3, asked, "twice for its proxies, and once for callers in plain text")
}

func TestVerdictCountsRoutesWithProblems(t *testing.T) {
	for want, broken := range map[string][][]string{
		"All is well.": {nil, {}},
		"The mesh is well; one route, policy or Service has a problem, see above.":   {{"a"}, nil},
		"The mesh is well; 3 routes, policies or Services have problems, see above.": {{"a", "b"}, {"c"}},
	} {
		var r report
		for _, b := range broken {
			r.Waypoints = append(r.Waypoints, waypointReport{Broken: b})
		}
		assert.Equal(t, want, r.verdict())
	}
}

// What no waypoint serves is shown all the same: it is what most needs showing.
func TestStatusOfWhatNoWaypointServes(t *testing.T) {
	service, gateway := gwv1.Kind("Service"), gwv1.Kind("Gateway")
	core := gwv1.Group("")
	refused := func(name string, ref gwv1.ParentReference, reason, message string) *gwv1.HTTPRoute {
		r := routed(name, metav1.Condition{Type: "Accepted", Status: metav1.ConditionFalse, Reason: reason, Message: message})
		r.Status.Parents[0].ParentRef = ref
		return r
	}
	unanswered := routed("unanswered")
	unanswered.Spec.ParentRefs = []gwv1.ParentReference{{Group: &core, Kind: &service, Name: "reviews"}}
	unanswered.Status.Parents = unanswered.Status.Parents[1:]
	bound := func(name, reason, message string) *corev1.Service {
		s := serving("shop", name, map[string]string{names.LabelUseWaypoint: "nowhere"})
		s.Status.Conditions = []metav1.Condition{
			{Type: v1alpha1.ServiceConditionWaypointBound, Status: metav1.ConditionFalse, Reason: reason, Message: message},
		}
		return s
	}
	headless := bound("headless", v1alpha1.ServiceReasonNotSupported, "it has no cluster IP")
	headless.Spec.ClusterIP, headless.Spec.ClusterIPs = corev1.ClusterIPNone, []string{corev1.ClusterIPNone}
	objects := append(healthyMesh(),
		bound("cart", v1alpha1.ServiceReasonWaypointMissing, "no Gateway nowhere: connections are refused"),
		headless,
		refused("of-cart", gwv1.ParentReference{Kind: &service, Name: "cart"}, "NoWaypoint", "no Gateway nowhere"),
		refused("of-nothing", gwv1.ParentReference{Kind: &service, Name: "nothing"}, "NoMatchingParent", `set group to ""`),
		refused("of-the-gateway", gwv1.ParentReference{Kind: &gateway, Name: names.AutomaticWaypoint},
			"NotAllowedByListeners", "name the Service"),
		unanswered)
	r := collect(t.Context(), fakeCluster(t, operators(t, inSync()...), objects...), names.SystemNamespace)
	assert.Equal(t, []string{
		`Service shop/cart: label fairway.dev/use-waypoint names "nowhere", but namespace shop has no Gateway with that name ` +
			"and class fairway-waypoint (one in another namespace can't be used): create it, or remove the label; until then, " +
			"connections are refused",
	}, r.Problems)
	assert.Equal(t, []string{
		"HTTPRoute shop/of-cart: Accepted=False NoWaypoint: no Gateway nowhere",
		`HTTPRoute shop/of-nothing: Accepted=False NoMatchingParent: set group to ""`,
		"HTTPRoute shop/unanswered: the operator has not processed it yet",
		"Service shop/headless: the Service has no cluster IP, so its clients dial pods directly, without a waypoint: the " +
			"label has no effect",
	}, r.Elsewhere)
	require.Len(t, r.Waypoints, 1)
	assert.Contains(t, r.Waypoints[0].Broken,
		"HTTPRoute shop/of-the-gateway: Accepted=False NotAllowedByListeners: name the Service")
	var out bytes.Buffer
	r.draw(&table{out: &out}, testNow)
	assert.Contains(t, out.String(), "\nNot served by any waypoint:\n  HTTPRoute shop/of-cart")
}

// A status of what a route was before says nothing of what it is.
func TestStatusOfARouteThatHasChanged(t *testing.T) {
	changed := routed("split", metav1.Condition{Type: "Accepted", Status: metav1.ConditionTrue, ObservedGeneration: 1})
	changed.Generation = 2
	ref := refersTo("", "Service", "", "reviews")
	changed.Spec.ParentRefs, changed.Status.Parents[0].ParentRef = []gwv1.ParentReference{ref}, ref
	r := collect(t.Context(), fakeCluster(t, operators(t, inSync()...), replace(t, healthyMesh(), changed)...),
		names.SystemNamespace)
	assert.Equal(t, []string{"HTTPRoute shop/split: the operator has not processed its last change yet"}, r.Elsewhere)
}

// What could not be asked is not said to be missing.
func TestStatusWithoutRights(t *testing.T) {
	c := fakeCluster(t, nil, healthyMesh()...)
	forbidden := apierrors.NewForbidden(schema.GroupResource{}, "", errors.New("no rights"))
	c.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
			return forbidden
		},
		List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error {
			return forbidden
		},
	})
	r := collect(t.Context(), c, names.SystemNamespace)
	assert.False(t, r.Healthy)
	assert.Empty(t, r.Problems)
	assert.NotEmpty(t, r.Unknown)
	var out bytes.Buffer
	r.draw(&table{out: &out}, testNow)
	assert.Contains(t, out.String(), "Mesh: unknown, see below")
	assert.NotContains(t, out.String(), "none")
	assert.NotContains(t, out.String(), "No waypoints")

	// Pods alone: no node is said to lack its proxy, and no operator to be missing.
	c = fakeCluster(t, nil, healthyMesh()...)
	c.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		List: func(ctx context.Context, w client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if _, ok := l.(*corev1.PodList); ok {
				return forbidden
			}
			return w.List(ctx, l, opts...)
		},
	})
	r = collect(t.Context(), c, names.SystemNamespace)
	assert.Empty(t, r.Problems)
	assert.Len(t, r.Unknown, 1)
}

// reachFunc answers anew each time it is asked.
type reachFunc func() fakePods

func (f reachFunc) get(ctx context.Context, pod types.NamespacedName, path string) ([]byte, error) {
	return f().get(ctx, pod, path)
}
