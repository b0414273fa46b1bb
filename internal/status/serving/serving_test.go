// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"

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

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/cluster"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
	"github.com/fairway-mesh/fairway/test/apiserver"
)

const scope xds.Scope = "waypoint/bookshop/fairway-waypoint"

var (
	waypoint = types.NamespacedName{Namespace: "bookshop", Name: "fairway-waypoint"}
	port80   = model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: 80}
	port81   = model.ServicePort{Namespace: "bookshop", Service: "reviews", Port: 81}
)

// book is what the proxies are made to say: each is ready, or starting, and says something of each resource.
type book struct {
	mu      sync.Mutex
	proxies []string
	nodes   []string                            // whose proxies have what leads to the waypoint; those in says may lack it
	says    map[xds.Key]map[string]xds.AckState // by proxy; what is not in it is acknowledged
	absent  map[xds.Key]map[string]bool         // not subscribed
	guards  *guardLedger                        // of pods, at their nodes
}

func newBook(proxies ...string) *book {
	return &book{proxies: proxies, says: map[xds.Key]map[string]xds.AckState{}, absent: map[xds.Key]map[string]bool{}}
}

func (b *book) State(k xds.Key) xds.ResourceState {
	b.mu.Lock()
	defer b.mu.Unlock()
	proxies := b.proxies
	switch k.Scope {
	case catalogue.AllNodes:
		proxies = b.nodes
	case scope:
	default:
		if b.guards != nil {
			return b.guards.State(k)
		}
		return xds.ResourceState{}
	}
	out := xds.ResourceState{Version: "v"}
	for _, p := range proxies {
		if b.absent[k][p] {
			continue
		}
		a := xds.ProxyAck{Proxy: xds.Proxy{Pod: "bookshop/" + p, PodUID: p}, State: xds.Acked, Version: "v"}
		if state, ok := b.says[k][p]; ok {
			a.State, a.Version = state, "older"
			if state == xds.Rejected {
				a.Error = "its own words"
			}
			if k == listener && state == xds.Pending {
				a.Version = "" // it starts
			}
		}
		out.Proxies = append(out.Proxies, a)
	}
	return out
}

func (b *book) set(proxies ...string) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.proxies = proxies
}

func (b *book) say(proxy string, k xds.Key, state xds.AckState) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.says[k] == nil {
		b.says[k] = map[string]xds.AckState{}
	}
	b.says[k][proxy] = state
}

var (
	listener = scope.Key(xds.TypeListener, names.ListenerMTLS)
	table80  = scope.Key(xds.TypeRoute, "service/bookshop/reviews/80")
	table81  = scope.Key(xds.TypeRoute, "service/bookshop/reviews/81")
	// dialled80 is what callers' nodes have for port 80.
	dialled80 = catalogue.AllNodes.Key(xds.TypeCluster, "10.96.0.10:80")
)

func TestProgrammedCountsWhatReadyProxiesAcknowledged(t *testing.T) {
	served := ingest.ParentReport{
		Waypoint: waypoint, Attachments: []model.Attachment{{Port: port80}, {Port: port81}},
		Backends: []string{"service/bookshop/ratings/80"},
		Dialled:  []netip.AddrPort{netip.MustParseAddrPort("10.96.0.10:80")},
	}
	stalled := served
	stalled.Stalled = true
	both := func(change func(*book)) *book {
		b := newBook("a", "b")
		change(b)
		return b
	}
	rejects := func(typeURL, name string) *book {
		return both(func(b *book) { b.say("b", scope.Key(typeURL, name), xds.Rejected) })
	}
	for name, c := range map[string]struct {
		report ingest.ParentReport
		book   *book
		status metav1.ConditionStatus
		reason string
		text   string
	}{
		"not accepted": {
			report: ingest.ParentReport{Unprogrammed: &ingest.Verdict{Reason: "Conflicted", Message: "taken"}},
			book:   newBook(), status: "False", reason: "Conflicted", text: "Taken.",
		},
		"no proxy yet": {
			report: served, book: newBook(), status: "False", reason: v1alpha1.EntryReasonNoProxies,
			text: "No proxy",
		},
		"no proxy, and none by itself": {
			report: stalled, book: newBook(), status: "False", reason: v1alpha1.EntryReasonWaypointStalled,
			text: "No proxy of waypoint",
		},
		"a proxy of a waypoint that can't have more": {
			report: stalled, status: "True", reason: v1alpha1.EntryReasonProgrammed, text: "1/1 proxies",
			book: newBook("a"),
		},
		"only a starting proxy": {
			report: served, status: "False", reason: v1alpha1.EntryReasonNoProxies, text: "No proxy",
			book: func() *book { b := newBook("a"); b.say("a", listener, xds.Pending); return b }(),
		},
		"a starting proxy does not count": {
			report: served, status: "True", reason: v1alpha1.EntryReasonProgrammed, text: "1/1 proxies",
			book: both(func(b *book) { b.say("b", listener, xds.Pending); b.say("b", table80, xds.Pending) }),
		},
		"callers go straight to the Service": {
			report: func() ingest.ParentReport { p := served; p.Pending = true; return p }(), book: newBook("a", "b"),
			status: "False", reason: v1alpha1.EntryReasonPending,
			text: "2/2 proxies of waypoint bookshop/fairway-waypoint serve this generation, but callers go straight",
		},
		"a caller's node is behind": {
			report: served, status: "False", reason: v1alpha1.EntryReasonPending, text: "but node proxy bookshop/n2 does not",
			book: both(func(b *book) { b.nodes = []string{"n1", "n2"}; b.say("n2", dialled80, xds.Pending) }),
		},
		"a caller's node rejects": {
			report: served, status: "False", reason: v1alpha1.EntryReasonProxyRejected,
			text: "bookshop/n2 rejects cluster 10.96.0.10:80",
			book: both(func(b *book) { b.nodes = []string{"n1", "n2"}; b.say("n2", dialled80, xds.Rejected) }),
		},
		"all callers' nodes": {
			report: served, status: "True", reason: v1alpha1.EntryReasonProgrammed, text: "2/2 proxies",
			book: both(func(b *book) { b.nodes = []string{"n1", "n2"} }),
		},
		"one port is behind": {
			report: served, status: "False", reason: v1alpha1.EntryReasonPending, text: "1/2 proxies",
			book: both(func(b *book) { b.say("b", table81, xds.Pending) }),
		},
		"a proxy has not asked yet": {
			report: served, status: "False", reason: v1alpha1.EntryReasonPending, text: "1/2 proxies",
			book: both(func(b *book) { b.absent[table80] = map[string]bool{"a": true} }),
		},
		"a starting proxy rejects": {
			report: served, status: "False", reason: v1alpha1.EntryReasonProxyRejected, text: "bookshop/b rejects listener mtls",
			book: both(func(b *book) { b.say("b", listener, xds.Rejected) }),
		},
		"route table rejected": {
			report: served, status: "False", reason: v1alpha1.EntryReasonProxyRejected,
			text: "last good version: its own words", book: rejects(xds.TypeRoute, "service/bookshop/reviews/81"),
		},
		"scope rejected": {
			report: served, status: "False", reason: v1alpha1.EntryReasonProxyRejected,
			text: "rejects way to route table service/bookshop/reviews/81",
			book: rejects(xds.TypeScopedRoute, "service/bookshop/reviews/81"),
		},
		"backend rejected": {
			report: served, status: "False", reason: v1alpha1.EntryReasonProxyRejected,
			text: "rejects cluster service/bookshop/ratings/80", book: rejects(xds.TypeCluster, "service/bookshop/ratings/80"),
		},
		"another's cluster": {
			report: served, status: "True", reason: v1alpha1.EntryReasonProgrammed, text: "2/2 proxies",
			book: rejects(xds.TypeCluster, "service/bookshop/details/80"),
		},
		"all": {
			report: served, status: "True", reason: v1alpha1.EntryReasonProgrammed, text: "2/2 proxies",
			book: newBook("a", "b"),
		},
	} {
		t.Run(name, func(t *testing.T) {
			got := (&Entries{acks: c.book}).programmed(model.ObjectRef{}, c.report, 7)
			require.Equal(t, c.status, got.Status, got.Message)
			require.Equal(t, c.reason, got.Reason)
			require.Contains(t, got.Message, c.text)
			require.Equal(t, int64(7), got.ObservedGeneration)
		})
	}
}

// TestAServiceRemembersItsWaypoint: what is written is what ingest reads again when the Gateway is another one.
func TestAServiceRemembersItsWaypoint(t *testing.T) {
	for name, c := range map[string]struct {
		binding ingest.Binding
		closed  bool
		text    string
	}{
		"served": {
			ingest.Binding{Waypoint: waypoint},
			true,
			"Connections from the mesh go through waypoint bookshop/fairway-waypoint.",
		},
		"served for some": {
			ingest.Binding{Waypoint: waypoint, Callers: []string{"a", "b"}},
			true,
			"Connections from namespaces a, b, which have routes",
		},
		"refused": {
			ingest.Binding{Waypoint: waypoint, Problem: "taken"},
			true,
			"Taken; until then, connections are refused.",
		},
		"refused for some": {
			ingest.Binding{Waypoint: waypoint, Problem: "taken", Callers: []string{"a"}},
			true,
			"Taken; until then, connections from namespaces a are refused.",
		},
		"not yet served": {
			ingest.Binding{Waypoint: waypoint, Automatic: true, Pending: true},
			false,
			"straight to the Service, and are refused at ports where policies decide on requests.",
		},
		"never to be served": {ingest.Binding{Unsupported: "it is headless"}, false, "the label has no effect."},
	} {
		t.Run(name, func(t *testing.T) {
			svc := &corev1.Service{}
			meta.SetStatusCondition(&svc.Status.Conditions, boundCondition(c.binding))
			require.Equal(t, c.closed, cluster.ServiceClosed(svc))
			require.Contains(t, boundCondition(c.binding).Message, c.text)
		})
	}
}

func TestWritersOnARealAPIServer(t *testing.T) {
	cfg := apiserver.Start(t, apiserver.Options{Fairway: true, GatewayAPI: apiserver.Standard})
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
		b := newBook("w-0")
		b.say("w-0", table80, xds.Pending)
		w := NewEntries(c, b, logr.Discard())
		go func() { _ = w.Start(ctx) }()
		w.Report(model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "reviews"}, &ingest.Report{
			Ref: model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "reviews"}, Generation: 1,
			Parents: []ingest.ParentReport{{
				Ref: parent, Waypoint: waypoint, Attachments: []model.Attachment{{Port: port80}},
				Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}},
			}},
		})
		programmedIs := func(status metav1.ConditionStatus) func() bool {
			return func() bool {
				got := &gwv1.HTTPRoute{}
				if c.Get(ctx, client.ObjectKeyFromObject(route), got) != nil || len(got.Status.Parents) != 1 {
					return false
				}
				p := meta.FindStatusCondition(got.Status.Parents[0].Conditions, v1alpha1.EntryConditionProgrammed)
				return p != nil && p.Status == status
			}
		}
		eventually.True(t, "Pending is said after patience", programmedIs(metav1.ConditionFalse))
		b.say("w-0", table80, xds.Acked)
		w.Acknowledged(scope.Key(xds.TypeRoute, "service/bookshop/reviews/80"))
		eventually.True(t, "the route is Programmed", programmedIs(metav1.ConditionTrue))
	})

	t.Run("a route whose status is full says so", func(t *testing.T) {
		route := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "many"}}
		require.NoError(t, c.Create(ctx, route))
		parent := func(n int) gwv1.ParentReference {
			return gwv1.ParentReference{
				Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")),
				Name: gwv1.ObjectName(fmt.Sprint("s", n)),
			}
		}
		for n := range 30 {
			route.Status.Parents = append(route.Status.Parents, gwv1.RouteParentStatus{
				ControllerName: "example.org/other", ParentRef: parent(n), Conditions: []metav1.Condition{
					{Type: "Accepted", Status: "True", Reason: "Accepted", LastTransitionTime: metav1.Now()},
				},
			})
		}
		require.NoError(t, c.Status().Update(ctx, route))
		ref := model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "many"}
		report := &ingest.Report{Ref: ref, Generation: 1}
		for n := range 3 {
			report.Parents = append(report.Parents, ingest.ParentReport{
				Ref:          parent(n),
				Unprogrammed: &ingest.Verdict{Reason: "NoWaypoint", Message: "none"},
			})
		}
		w := NewEntries(c, newBook(), logr.Discard())
		go func() { _ = w.Start(ctx) }()
		w.Report(ref, report)
		eventually.True(t, "the route's status is full", func() bool {
			require.NoError(t, c.Get(ctx, client.ObjectKeyFromObject(route), route))
			return len(route.Status.Parents) == 32
		})
		full := meta.FindStatusCondition(route.Status.Parents[31].Conditions, v1alpha1.EntryConditionStatusFull)
		require.Contains(t, full.Message, "1 entries of the mesh are left out")
	})

	t.Run("a policy", func(t *testing.T) { testPolicyOnARealAPIServer(t, cfg) })
	t.Run("modes", func(t *testing.T) { testModesOnARealAPIServer(t, cfg) })
	t.Run("an AuthorizationPolicy", func(t *testing.T) { testAuthorizationPolicyOnARealAPIServer(t, cfg) })

	t.Run("a Service says what is wrong with its waypoint", func(t *testing.T) {
		svc := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Namespace: "bookshop", Name: "reviews"},
			Spec:       corev1.ServiceSpec{Ports: []corev1.ServicePort{{Port: 80}}},
		}
		require.NoError(t, c.Create(ctx, svc))
		rec := events.NewFakeRecorder(4)
		w := NewServices(c, rec, logr.Discard())
		go func() { _ = w.Start(ctx) }()
		key := client.ObjectKeyFromObject(svc)
		bound := func() *metav1.Condition {
			got := &corev1.Service{}
			require.NoError(t, c.Get(ctx, key, got))
			return meta.FindStatusCondition(got.Status.Conditions, v1alpha1.ServiceConditionWaypointBound)
		}
		w.Bound(key, ingest.Binding{
			Waypoint: types.NamespacedName{Namespace: "bookshop", Name: "nowhere"},
			Problem:  "no such Gateway",
		})
		eventually.True(t, "the waypoint is missing", func() bool {
			b := bound()
			return b != nil && b.Reason == v1alpha1.ServiceReasonWaypointMissing
		})
		require.Contains(t, <-rec.Events, "No such Gateway; until then, connections are refused.")
		w.Bound(key, ingest.Binding{Waypoint: waypoint})
		eventually.True(t, "the waypoint is bound", func() bool {
			b := bound()
			return b != nil && b.Status == metav1.ConditionTrue
		})
		w.Bound(key, ingest.Binding{Waypoint: waypoint, Spreads: true})
		eventually.True(t, "internalTrafficPolicy does not hold", func() bool {
			b := bound()
			return b != nil && b.Status == metav1.ConditionTrue &&
				strings.Contains(b.Message, "internalTrafficPolicy Local doesn't apply")
		})
		w.Bound(key, ingest.Binding{Unsupported: "the Service has no cluster IP"})
		eventually.True(t, "the Service is not supported", func() bool {
			b := bound()
			return b != nil && b.Reason == v1alpha1.ServiceReasonNotSupported
		})
		require.Contains(t, <-rec.Events, "internalTrafficPolicy Local doesn't apply")
		require.Contains(t, <-rec.Events, "NotSupported The Service has no cluster IP")
		w.LeftOut(key, ingest.LeftOut{TooMany: true})
		require.Contains(t, <-rec.Events, "EndpointsLeftOut Proxies get only some of the endpoints")
		w.LeftOut(key, ingest.LeftOut{TooMany: true, Stray: "10.0.0.1:80, pod shop/db-0, of port 80"})
		require.Contains(t, <-rec.Events, "EndpointsLeftOut Waypoints leave out endpoint 10.0.0.1:80, pod shop/db-0")
		w.LeftOut(key, ingest.LeftOut{
			TooMany: true, Stray: "10.0.0.1:80, pod shop/db-0, of port 80", Outsider: "192.0.2.1:80 of port 80",
		})
		require.Contains(t, <-rec.Events,
			"EndpointsLeftOut Waypoints of other namespaces leave out endpoint 192.0.2.1:80 of port 80")
		w.LeftOut(key, ingest.LeftOut{
			TooMany: true, Stray: "10.0.0.1:80, pod shop/db-0, of port 80", Outsider: "192.0.2.1:80 of port 80",
			Waypoint: "owner/w",
		})
		require.Contains(t, <-rec.Events, "EndpointsLeftOut Waypoint owner/w gets only some of the endpoints")
		w.Touch(key) // it is said once: the channel has nothing more in the end
		w.Bound(key, ingest.Binding{})
		eventually.True(t, "the condition is gone", func() bool { return bound() == nil })
		eventually.True(t, "nothing is left to clear", w.Cleared)
		require.Empty(t, rec.Events)
	})
}
