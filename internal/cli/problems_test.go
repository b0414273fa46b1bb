// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/names"
)

// drawn is what people see.
func drawn(t *testing.T, s state) []byte {
	t.Helper()
	var out bytes.Buffer
	table := &table{out: &out}
	s.draw(table, testNow)
	require.NoError(t, table.err)
	return out.Bytes()
}

// waiting is a pod that isn't ready, for want of what a container waits for.
func waiting(container, reason, image string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Status.Conditions = nil
		p.Status.ContainerStatuses = []corev1.ContainerStatus{{
			Name: container, Image: image,
			State: corev1.ContainerState{Waiting: &corev1.ContainerStateWaiting{Reason: reason}},
		}}
	}
}

// unschedulable is a pod that has no node; a DaemonSet's is made for one.
func unschedulable(node, message string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		p.Spec.NodeName, p.Status.Phase = "", corev1.PodPending
		p.Status.Conditions = []corev1.PodCondition{
			{Type: corev1.PodScheduled, Status: corev1.ConditionFalse, Reason: corev1.PodReasonUnschedulable, Message: message},
		}
		if node == "" {
			return
		}
		field := corev1.NodeSelectorRequirement{
			Key: "metadata.name", Operator: corev1.NodeSelectorOpIn, Values: []string{node},
		}
		p.Spec.Affinity = &corev1.Affinity{NodeAffinity: &corev1.NodeAffinity{
			RequiredDuringSchedulingIgnoredDuringExecution: &corev1.NodeSelector{NodeSelectorTerms: []corev1.NodeSelectorTerm{
				{MatchFields: []corev1.NodeSelectorRequirement{field}},
			}},
		}}
	}
}

// gateway is a waypoint that serves, but for the changes.
func gateway(name string, change ...func(*gwv1.Gateway)) *gwv1.Gateway {
	g := &gwv1.Gateway{
		ObjectMeta: in("shop", object(name, nil)),
		Spec: gwv1.GatewaySpec{
			GatewayClassName: names.WaypointClass,
			Listeners:        []gwv1.Listener{{Name: "mesh", Port: names.PortMTLS, Protocol: names.Domain + "/MTLS"}},
		},
		Status: gwv1.GatewayStatus{Conditions: []metav1.Condition{
			{Type: "Programmed", Status: metav1.ConditionTrue},
			{Type: v1alpha1.GatewayConditionEstablished, Status: metav1.ConditionTrue},
		}},
	}
	for _, c := range change {
		c(g)
	}
	return g
}

func uses(waypoint string) map[string]string {
	return map[string]string{names.LabelUseWaypoint: waypoint}
}

// shopUses is the enrolled namespace with a waypoint.
func shopUses(waypoint string) *corev1.Namespace {
	labels := uses(waypoint)
	labels[names.LabelMesh] = names.MeshEnabled
	return &corev1.Namespace{ObjectMeta: object("shop", labels)}
}

func refersTo(group, kind, namespace, name string) gwv1.ParentReference {
	ref := gwv1.ParentReference{Name: gwv1.ObjectName(name)}
	if group != "default" {
		ref.Group = (*gwv1.Group)(&group)
	}
	if kind != "" {
		ref.Kind = (*gwv1.Kind)(&kind)
	}
	if namespace != "" {
		ref.Namespace = (*gwv1.Namespace)(&namespace)
	}
	return ref
}

// unansweredRoute has parents, and no status.
func unansweredRoute(namespace, name string, refs ...gwv1.ParentReference) *gwv1.HTTPRoute {
	return &gwv1.HTTPRoute{
		ObjectMeta: in(namespace, object(name, nil)),
		Spec:       gwv1.HTTPRouteSpec{CommonRouteSpec: gwv1.CommonRouteSpec{ParentRefs: refs}},
	}
}

// badStates are clusters with something wrong, by the name of the golden file.
func badStates(t *testing.T) map[string][]client.Object {
	t.Helper()
	fleet := func(n int) (out []client.Object) {
		for i := range n {
			out = append(out, pod("shop", fmt.Sprintf("fleet-%d", i), "c", ""))
		}
		return out
	}
	manyRoutes := append(healthyMesh(),
		unansweredRoute("shop", "of-nothing", refersTo("", "Service", "", "nothing")),
		unansweredRoute("shop", "without-group", refersTo("default", "Service", "", "reviews")),
		unansweredRoute("shop", "of-group-core", refersTo("core", "Service", "", "reviews")),
		unansweredRoute("shop", "of-group-core-outside", refersTo("core", "Service", "other", "reviews")),
		unansweredRoute("shop", "of-a-stranger", refersTo("", "Service", "other", "reviews")),
		unansweredRoute("shop", "of-no-gateway", refersTo("default", "", "", "nowhere")),
		unansweredRoute("shop", "of-the-waypoint", refersTo("default", "Gateway", "", names.AutomaticWaypoint)),
		unansweredRoute("shop", "of-an-ingress", refersTo("default", "", "", "of-another-class")),
		unansweredRoute("shop", "of-nobody"),
		unansweredRoute("shop", "new", refersTo("", "Service", "", "reviews")),
		unansweredRoute("other", "elsewhere", refersTo("default", "", "", "nowhere")),
		unansweredRoute("other", "from-outside", refersTo("", "Service", "shop", "nothing")),
	)
	return map[string][]client.Object{
		"operator-down": replace(t, append(healthyMesh(), gateway("new", func(g *gwv1.Gateway) {
			g.Status.Conditions = nil
		})), pod(names.SystemNamespace, "operator-1", "a", names.ComponentOperator,
			waiting("operator", "ErrImagePull", "fairway.dev/fairway:v0.1.0"))),
		"node-without-proxy": append(append(healthyMesh(), fleet(7)...),
			&corev1.Node{ObjectMeta: object("c", nil)},
			pod("shop", "starting", "c", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
			pod("shop", "elsewhere", "a", "", func(p *corev1.Pod) { p.Status.Phase = corev1.PodPending }),
			pod(names.SystemNamespace, "node-c", "", names.ComponentNode, unschedulable("c", "0/3 nodes: Insufficient memory.")),
			pod("shop", "odd-1", "b", "", captured(corev1.ConditionFalse, "NetnsMissing", "no namespace")),
			pod("shop", "odd-2", "b", "", captured(corev1.ConditionFalse, "NetnsMissing", "no namespace"))),
		"waypoint-missing": replace(t, append(healthyMesh(), serving("shop", "own", uses("also-nowhere")),
			serving("shop", "off", uses(names.UseWaypointNone)), serving("other", "outside", uses("nowhere")),
			serving("shop", "ratings", nil)), shopUses("nowhere")),
		"waypoint-down": replace(t, append(healthyMesh(), gateway("own"),
			pod("shop", "own-1", "", names.ComponentWaypoint, unschedulable("", "0/2 nodes: Insufficient cpu."),
				func(p *corev1.Pod) { p.Labels[names.LabelGatewayName] = "own" }),
			&appsv1.Deployment{ObjectMeta: in("shop", object(names.WaypointResource("own"),
				map[string]string{names.LabelManagedBy: names.ManagedBy}))},
			gateway("over-quota"), &appsv1.Deployment{
				ObjectMeta: in("shop", object(names.WaypointResource("over-quota"),
					map[string]string{names.LabelManagedBy: names.ManagedBy})),
				Status: appsv1.DeploymentStatus{Conditions: []appsv1.DeploymentCondition{
					{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota: pods."},
				}},
			}), shopUses("own")),
		"routes": manyRoutes,
	}
}

func TestStatusOfBadStates(t *testing.T) {
	for name, objects := range badStates(t) {
		t.Run(name, func(t *testing.T) {
			r := collect(t.Context(), fakeCluster(t, operators(t, inSync()...), objects...), names.SystemNamespace)
			golden(t, "status-"+name+".txt", drawn(t, &r))
			if name == "waypoint-missing" {
				var out bytes.Buffer
				require.NoError(t, (&outputFlag{"json"}).print(&out, r, nil))
				golden(t, "status-"+name+".json", out.Bytes())
			}
		})
	}
}

// A Service that refuses everybody is told of whether or not the operator has said so, or can.
func TestStatusOfServicesWithoutTheOperator(t *testing.T) {
	objects := replace(t, healthyMesh(), shopUses("nowhere"))
	with := collect(t.Context(), fakeCluster(t, operators(t, inSync()...), objects...), names.SystemNamespace)
	require.Len(t, with.Problems, 1)
	objects = replace(t, objects, pod(names.SystemNamespace, "operator-1", "a", names.ComponentOperator,
		waiting("operator", "CrashLoopBackOff", "")))
	without := collect(t.Context(), fakeCluster(t, fakePods{}, objects...), names.SystemNamespace)
	require.Contains(t, without.Problems, with.Problems[0])
	require.Equal(t, "the operator does not run, none of its replicas is ready: operator: CrashLoopBackOff",
		without.Problems[0])
	require.Empty(t, without.Unknown, "that it can't be asked follows")

	// What it has said and not taken back holds for proxies.
	mended := serving("shop", "reviews", nil)
	mended.Status.Conditions = []metav1.Condition{{
		Type: v1alpha1.ServiceConditionWaypointBound, Status: metav1.ConditionFalse,
		Reason: v1alpha1.ServiceReasonWaypointMissing, Message: "No Gateway.",
	}}
	r := collect(t.Context(), fakeCluster(t, operators(t, inSync()...), replace(t, healthyMesh(), mended)...),
		names.SystemNamespace)
	require.Equal(t, []string{
		"Service shop/reviews: connections are refused until the operator takes back what it has last said: No Gateway.",
	}, r.Problems)
}

// withoutKinds is a cluster that lacks kinds, by the names of their lists.
func withoutKinds(c *cluster, kinds ...string) {
	lacks := func(o any) error {
		for _, k := range kinds {
			if strings.HasSuffix(fmt.Sprintf("%T", o), "."+k) {
				return &meta.NoKindMatchError{GroupKind: schema.GroupKind{Kind: k}}
			}
		}
		return nil
	}
	c.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
		Get: func(
			ctx context.Context, w client.WithWatch, key client.ObjectKey, o client.Object, opts ...client.GetOption,
		) error {
			if err := lacks(o); err != nil {
				return err
			}
			return w.Get(ctx, key, o, opts...)
		},
		List: func(ctx context.Context, w client.WithWatch, l client.ObjectList, opts ...client.ListOption) error {
			if err := lacks(l); err != nil {
				return err
			}
			return w.List(ctx, l, opts...)
		},
	})
}

func TestStatusWhereKindsAreMissing(t *testing.T) {
	nothing := fakeCluster(t, nil, &corev1.Node{ObjectMeta: object("a", nil)})
	withoutKinds(nothing, "Mesh")
	r := collect(t.Context(), nothing, names.SystemNamespace)
	assert.Equal(t, []string{"Fairway is not installed in this cluster: the kind Mesh does not exist"}, r.Problems,
		"that there is no operator either follows")

	unready := mesh(metav1.ConditionFalse, v1alpha1.MeshReasonGatewayAPIMissing, "The CRDs are not installed.")
	c := fakeCluster(t, operators(t, inSync()...), replace(t, healthyMesh(), unready)...)
	withoutKinds(c, "GatewayList", "HTTPRouteList", "GRPCRouteList")
	r = collect(t.Context(), c, names.SystemNamespace)
	assert.Equal(t, []string{
		"the kinds of the Gateway API are not installed, so there are no routes and no waypoints: install its CRDs",
	}, r.Problems)
}

// An API server that goes away in the middle is one line, not one for each kind.
func TestStatusWhileTheAPIServerGoesAway(t *testing.T) {
	gone := &url.Error{Op: "Get", URL: "https://10.0.0.1/api", Err: fmt.Errorf("dial tcp: %w", syscall.ECONNREFUSED)}
	for why, err := range map[string]error{
		"the API server can't be reached: connection refused": gone,
		"no answer in time (--timeout)":                       fmt.Errorf("Get x: %w", context.DeadlineExceeded),
	} {
		c := fakeCluster(t, nil, healthyMesh()...)
		c.client = interceptor.NewClient(c.client.(client.WithWatch), interceptor.Funcs{
			Get: func(context.Context, client.WithWatch, client.ObjectKey, client.Object, ...client.GetOption) error {
				return err
			},
			List: func(context.Context, client.WithWatch, client.ObjectList, ...client.ListOption) error { return err },
		})
		r := collect(t.Context(), c, names.SystemNamespace)
		require.Len(t, r.Unknown, 1)
		require.True(t, strings.HasPrefix(r.Unknown[0], "the Mesh, namespaces, pods, "), r.Unknown[0])
		require.True(t, strings.HasSuffix(r.Unknown[0], " can't be read: "+why), r.Unknown[0])
		require.Empty(t, r.Problems)
	}
}

// Where Gateways can't be read, what the operator has said of a Service holds.
func TestStatusOfServicesWithoutTheRightToReadGateways(t *testing.T) {
	closed, unsupported := serving("shop", "reviews", uses("own")), serving("shop", "odd", uses("own"))
	for s, reason := range map[*corev1.Service]string{
		closed: v1alpha1.ServiceReasonWaypointMissing, unsupported: v1alpha1.ServiceReasonNotSupported,
	} {
		s.Status.Conditions = []metav1.Condition{{
			Type: v1alpha1.ServiceConditionWaypointBound, Status: metav1.ConditionFalse, Reason: reason,
			Message: "It says: the label has no effect.",
		}}
	}
	c := fakeCluster(t, operators(t, inSync()...), replace(t, healthyMesh(), closed, unsupported)...)
	r := collect(t.Context(), forbidding(c, sameType(&gwv1.GatewayList{})), names.SystemNamespace)
	require.Equal(t, []string{"Service shop/reviews: It says: the label has no effect."}, r.Problems)
	require.Contains(t, r.Elsewhere, "Service shop/odd: It says: the label has no effect")
}

func TestStatusOfAnOperatorWithoutPods(t *testing.T) {
	scaled := &appsv1.Deployment{ObjectMeta: in(names.SystemNamespace, object(names.OperatorDeployment,
		map[string]string{names.LabelComponent: names.ComponentOperator}))}
	for want, change := range map[string]func(*appsv1.Deployment){
		"the operator does not run: its Deployment fairway-system/fairway-operator has 0 replicas, set some": func(
			d *appsv1.Deployment,
		) {
			d.Spec.Replicas = new(int32(0))
		},
		"the operator does not run: no pods can be made: exceeded quota": func(d *appsv1.Deployment) {
			d.Status.Conditions = []appsv1.DeploymentCondition{
				{Type: appsv1.DeploymentReplicaFailure, Status: corev1.ConditionTrue, Message: "exceeded quota"},
			}
		},
		"the operator does not run: its Deployment fairway-system/fairway-operator has no pods yet": func(
			*appsv1.Deployment,
		) {
		},
	} {
		d := scaled.DeepCopy()
		change(d)
		c := fakeCluster(t, nil, mesh(metav1.ConditionTrue, "Ready", ""), d)
		r := collect(t.Context(), c, names.SystemNamespace)
		assert.Equal(t, []string{want}, r.Problems)
	}
}

// anchors are the sections of a document as GitHub names them, for headings of words and dashes.
func anchors(t *testing.T, page string) map[string]bool {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", page))
	require.NoError(t, err)
	out := map[string]bool{}
	for _, h := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		name := regexp.MustCompile(`[^\w\- ]`).ReplaceAllString(strings.ToLower(h[1]), "")
		out[strings.ReplaceAll(name, " ", "-")] = true
	}
	return out
}

// TestProblemsPointToSectionsThatExist: a link that leads nowhere helps nobody.
func TestProblemsPointToSectionsThatExist(t *testing.T) {
	all := []string{docsRights, docsNeeds, docsUpgrade, docsPolicies}
	for _, k := range problemKinds {
		all = append(all, k.docs())
	}
	for _, docs := range all {
		page, anchor, ok := strings.Cut(docs, "#")
		require.True(t, ok, docs)
		assert.True(t, anchors(t, page)[anchor], docs)
	}
	assert.False(t, anchors(t, docsBase+"troubleshooting.md")["nothing-of-the-kind"])
}

func TestProblemKindsAreInOrder(t *testing.T) {
	for i, k := range problemKinds {
		require.Equal(t, i, k.rank)
	}
}

func TestEnumerate(t *testing.T) {
	assert.Equal(t, "a, b, c", enumerate([]string{"a", "b", "c"}))
	assert.Equal(t, "a, b, c and 2 more", enumerate([]string{"a", "b", "c", "d", "e"}))
	assert.Equal(t, "a, b and c", and([]string{"a", "b", "c"}))
	assert.Equal(t, "a", and([]string{"a"}))
}
