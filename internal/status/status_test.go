// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	clientgoscheme "k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

const scope = "waypoint/bookshop/fairway-waypoint"

var (
	waypoint = types.NamespacedName{Namespace: "bookshop", Name: "fairway-waypoint"}
	port80   = model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: 80}
	port81   = model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: 81}
)

// book is what the proxies are made to say.
type book struct {
	mu        sync.Mutex
	connected int
	states    map[string][]xds.ProxyAck
}

func (b *book) Connected(string) int { b.mu.Lock(); defer b.mu.Unlock(); return b.connected }

func (b *book) State(s, _, name string) xds.ResourceState {
	b.mu.Lock()
	defer b.mu.Unlock()
	if s != scope {
		return xds.ResourceState{}
	}
	return xds.ResourceState{Version: "v", Proxies: b.states[name]}
}

func (b *book) set(connected int, port model.ServicePort, states ...xds.AckState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.connected = connected
	var acks []xds.ProxyAck
	for _, s := range states {
		acks = append(acks, xds.ProxyAck{State: s, Proxy: xds.Proxy{Pod: "bookshop/w-0"}, Error: "its own words"})
	}
	if b.states == nil {
		b.states = map[string][]xds.ProxyAck{}
	}
	b.states[names.ServicePort(port.Namespace, port.Service, port.Port)] = acks
}

func TestProgrammedCountsWhatProxiesAcknowledged(t *testing.T) {
	served := ingest.ParentReport{Waypoint: waypoint, Ports: []model.ServicePort{port80, port81}}
	for name, c := range map[string]struct {
		report  ingest.ParentReport
		say     func(*book)
		status  metav1.ConditionStatus
		reason  string
		text    string
		settled bool
	}{
		"not accepted": {
			report: ingest.ParentReport{Unprogrammed: &ingest.Verdict{Reason: "Conflicted", Message: "taken"}},
			say:    func(*book) {}, status: "False", reason: "Conflicted", text: "taken", settled: true,
		},
		"no proxy yet": {report: served, say: func(*book) {}, status: "False", reason: ReasonNoProxies, text: "no proxy", settled: true},
		"one port is behind": {
			report: served, status: "False", reason: ReasonPending, text: "1/2 proxies",
			say: func(b *book) { b.set(2, port80, xds.Acked, xds.Acked); b.set(2, port81, xds.Acked, xds.Pending) },
		},
		"a proxy has not asked yet": {
			report: served, status: "False", reason: ReasonPending, text: "1/2 proxies",
			say: func(b *book) { b.set(2, port80, xds.Acked); b.set(2, port81, xds.Acked, xds.Acked) },
		},
		"rejected": {
			report: served, status: "False", reason: ReasonProxyRejected, text: "its own words", settled: true,
			say: func(b *book) { b.set(2, port80, xds.Acked, xds.Rejected); b.set(2, port81, xds.Acked, xds.Acked) },
		},
		"all": {
			report: served, status: "True", reason: ReasonProgrammed, text: "2/2 proxies", settled: true,
			say: func(b *book) { b.set(2, port80, xds.Acked, xds.Acked); b.set(2, port81, xds.Acked, xds.Acked) },
		},
	} {
		t.Run(name, func(t *testing.T) {
			b := &book{}
			c.say(b)
			got, settled := programmed(c.report, 7, b)
			require.Equal(t, c.status, got.Status)
			require.Equal(t, c.reason, got.Reason)
			require.Contains(t, got.Message, c.text)
			require.Equal(t, int64(7), got.ObservedGeneration)
			require.Equal(t, c.settled, settled)
		})
	}
}

func TestMergeKeepsOthersAndTimes(t *testing.T) {
	long := metav1.NewTime(time.Unix(1000, 0))
	ref := gwv1.ParentReference{Name: "reviews"}
	other := gwv1.RouteParentStatus{ControllerName: "example.org/other", ParentRef: ref}
	old := []gwv1.RouteParentStatus{other, {ControllerName: names.MeshController, ParentRef: ref, Conditions: []metav1.Condition{
		{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: long},
		{Type: "PartiallyInvalid", Status: "True", Reason: "x", LastTransitionTime: long},
	}}, {ControllerName: names.MeshController, ParentRef: gwv1.ParentReference{Name: "former"}}}
	got := merge(old, []gwv1.RouteParentStatus{{ControllerName: names.MeshController, ParentRef: ref, Conditions: []metav1.Condition{
		{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 2},
	}}})
	require.Len(t, got, 2)
	require.Equal(t, other, got[0])
	require.Len(t, got[1].Conditions, 1)
	require.Equal(t, long, got[1].Conditions[0].LastTransitionTime)
	require.Equal(t, int64(2), got[1].Conditions[0].ObservedGeneration)
}

func TestWritersOnARealAPIServer(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{GatewayAPI: apiserver.Standard})
	s := runtime.NewScheme()
	require.NoError(t, clientgoscheme.AddToScheme(s))
	require.NoError(t, gwv1.Install(s))
	c, err := client.New(cfg, client.Options{Scheme: s})
	require.NoError(t, err)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	require.NoError(t, c.Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "bookshop"}}))

	t.Run("a route is Programmed once acknowledged", func(t *testing.T) {
		route := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"}}
		parent := gwv1.ParentReference{Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: "reviews"}
		route.Spec.ParentRefs = []gwv1.ParentReference{parent}
		require.NoError(t, c.Create(ctx, route))
		b := &book{}
		b.set(1, port80, xds.Pending)
		w := NewWriter(c, b, logr.Discard())
		go func() { _ = w.Start(ctx) }()
		w.Report(model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "reviews"}, &ingest.RouteReport{
			Ref: model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "reviews"}, Generation: 1,
			Parents: []ingest.ParentReport{{
				Ref: parent, Waypoint: waypoint, Ports: []model.ServicePort{port80},
				Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}},
			}},
		})
		programmedIs := func(status metav1.ConditionStatus) func() bool {
			return func() bool {
				got := &gwv1.HTTPRoute{}
				if c.Get(ctx, client.ObjectKeyFromObject(route), got) != nil || len(got.Status.Parents) != 1 {
					return false
				}
				p := meta.FindStatusCondition(got.Status.Parents[0].Conditions, names.ConditionProgrammed)
				return p != nil && p.Status == status
			}
		}
		require.Eventually(t, programmedIs(metav1.ConditionFalse), 10*time.Second, 10*time.Millisecond, "Pending is said after patience")
		b.set(1, port80, xds.Acked)
		w.Acknowledged(scope, xds.TypeRoute, "service/bookshop/reviews/80")
		require.Eventually(t, programmedIs(metav1.ConditionTrue), 10*time.Second, 10*time.Millisecond)
	})

	t.Run("a Service says what is wrong with its waypoint", func(t *testing.T) {
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}
		require.NoError(t, c.Create(ctx, svc))
		rec := events.NewFakeRecorder(4)
		w := NewServiceWriter(c, rec, logr.Discard())
		go func() { _ = w.Start(ctx) }()
		key := client.ObjectKeyFromObject(svc)
		bound := func() *metav1.Condition {
			got := &corev1.Service{}
			require.NoError(t, c.Get(ctx, key, got))
			return meta.FindStatusCondition(got.Status.Conditions, names.ConditionWaypointBound)
		}
		w.Bound(key, ingest.Binding{Waypoint: types.NamespacedName{Namespace: "bookshop", Name: "nowhere"}, Problem: "no such Gateway"})
		require.Eventually(t, func() bool { b := bound(); return b != nil && b.Reason == ReasonWaypointMissing }, 10*time.Second, 10*time.Millisecond)
		require.Contains(t, <-rec.Events, "no such Gateway")
		w.Bound(key, ingest.Binding{Waypoint: waypoint})
		require.Eventually(t, func() bool { b := bound(); return b != nil && b.Status == metav1.ConditionTrue }, 10*time.Second, 10*time.Millisecond)
		w.Bound(key, ingest.Binding{Unsupported: "the Service has no cluster IP"})
		require.Eventually(t, func() bool { b := bound(); return b != nil && b.Reason == ReasonNotSupported }, 10*time.Second, 10*time.Millisecond)
		w.Bound(key, ingest.Binding{})
		require.Eventually(t, func() bool { return bound() == nil }, 10*time.Second, 10*time.Millisecond)
	})
}
