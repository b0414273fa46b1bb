// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"context"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	"sigs.k8s.io/controller-runtime/pkg/client/fake"
	"sigs.k8s.io/controller-runtime/pkg/client/interceptor"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/status"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// world is a writer with one route, on a clock that the test has in its hand.
type world struct {
	t      *testing.T
	client client.Client
	writer *Entries
	book   *book
	writes atomic.Int32
	reads  atomic.Int32
	parent gwv1.ParentReference
	ref    model.ObjectRef
}

func inWorld(t *testing.T, do func(*world)) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{
			t: t, book: newBook("a", "b"), ref: model.ObjectRef{
				Kind: ingest.KindHTTPRoute, Namespace: "bookshop",
				Name: "reviews",
			},
			parent: gwv1.ParentReference{Group: new(gwv1.Group("")), Kind: new(gwv1.Kind("Service")), Name: "reviews"},
		}
		s := runtime.NewScheme()
		require.NoError(t, gwv1.Install(s))
		route := &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{
			Namespace: "bookshop", Name: "reviews", UID: "1",
			Generation: 1,
		}}
		w.client = fake.NewClientBuilder().WithScheme(s).WithObjects(route).WithStatusSubresource(route).
			WithInterceptorFuncs(interceptor.Funcs{
				Get: func(ctx context.Context, c client.WithWatch, key client.ObjectKey, o client.Object,
					opts ...client.GetOption,
				) error {
					w.reads.Add(1)
					return c.Get(ctx, key, o, opts...)
				},
				SubResourceUpdate: func(ctx context.Context, c client.Client, sub string, o client.Object,
					opts ...client.SubResourceUpdateOption,
				) error {
					w.writes.Add(1)
					return c.SubResource(sub).Update(ctx, o, opts...)
				},
			}).Build()
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		w.writer = NewEntries(w.client, w.book, logr.Discard())
		go func() { defer close(ended); _ = w.writer.Start(ctx) }()
		do(w)
		cancel()
		<-ended
	})
}

func (w *world) report(parents ...ingest.ParentReport) {
	w.writer.Report(w.ref, &ingest.Report{Ref: w.ref, UID: "1", Generation: 1, Parents: parents})
	synctest.Wait()
}

func (w *world) served() ingest.ParentReport {
	return ingest.ParentReport{
		Ref: w.parent, Waypoint: waypoint, Attachments: []model.Attachment{{Port: port80}},
		Conditions: []metav1.Condition{{Type: "Accepted", Status: "True", Reason: "Accepted", ObservedGeneration: 1}},
	}
}

// noteChanged tells the writer what the book's server would.
func (w *world) noteChanged() {
	w.writer.Acknowledged(scope.Key(xds.TypeListener, names.ListenerMTLS), table80)
	synctest.Wait()
}

func (w *world) status() []gwv1.RouteParentStatus {
	route := &gwv1.HTTPRoute{}
	require.NoError(w.t, w.client.Get(w.t.Context(), types.NamespacedName{Namespace: "bookshop", Name: "reviews"}, route))
	return route.Status.Parents
}

func (w *world) says(status metav1.ConditionStatus, text string) {
	w.t.Helper()
	parents := w.status()
	require.Len(w.t, parents, 1)
	c := meta.FindStatusCondition(parents[0].Conditions, v1alpha1.EntryConditionProgrammed)
	require.Equal(w.t, status, c.Status, c.Message)
	require.Contains(w.t, c.Message, text)
}

func TestARolloutCostsAtMostOneWrite(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		w.says("True", "2/2")
		require.EqualValues(t, 1, w.writes.Load())

		w.book.say("c", listener, xds.Pending) // it starts
		w.book.set("a", "b", "c")
		w.noteChanged()
		w.book.say("c", table80, xds.Pending)
		w.book.say("c", listener, xds.Acked) // ready, and one table behind
		w.noteChanged()
		time.Sleep(time.Second)
		w.book.say("c", table80, xds.Acked)
		w.noteChanged()
		w.book.set("b", "c") // the old one goes
		w.noteChanged()
		time.Sleep(2 * status.HoldTime)
		w.says("True", "2/2")
		require.EqualValues(t, 1, w.writes.Load())

		w.book.set("a", "b", "c")
		w.noteChanged()
		require.EqualValues(t, 1, w.writes.Load())
		time.Sleep(2 * status.HoldTime)
		w.says("True", "3/3")
		require.EqualValues(t, 2, w.writes.Load())
	})
}

func TestProxiesAwayAreGivenTime(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		w.book.set()
		w.noteChanged()
		time.Sleep(status.HoldTime - time.Second)
		w.says("True", "2/2")
		w.book.set("a", "b")
		w.noteChanged()
		time.Sleep(2 * status.HoldTime)
		require.EqualValues(t, 1, w.writes.Load(), "they came back in time")

		w.book.set()
		w.noteChanged()
		time.Sleep(status.HoldTime + time.Second)
		w.says("False", "No proxy")
	})
}

func TestARestartedOperatorHoldsWhatIsWritten(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		w.says("True", "2/2")
		w.book.set()
		// Another leader knows what is written, and no proxy yet.
		w.writer.Forget(w.ref)
		w.report(w.served())
		w.says("True", "2/2")
		time.Sleep(time.Second)
		w.book.set("a", "b")
		w.noteChanged()
		time.Sleep(2 * status.HoldTime)
		require.EqualValues(t, 1, w.writes.Load())
	})
}

func TestNothingElseIsHeld(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		w.says("True", "2/2")
		w.book.say("b", table80, xds.Rejected)
		w.noteChanged()
		w.says("True", "2/2") // the culprit is being sought
		time.Sleep(Search + time.Second)
		w.says("False", "its own words")
		w.book.say("b", table80, xds.Acked)
		w.noteChanged()
		w.says("True", "2/2")

		other := w.served()
		other.Waypoint.Name = "other"
		w.report(other)
		w.says("False", "other")
		w.report(w.served())
		w.says("True", "2/2")

		// While it is held, the rest of the status is written.
		w.book.set()
		partial := w.served()
		partial.Conditions = append(partial.Conditions, metav1.Condition{
			Type: "ResolvedRefs", Status: "False",
			Reason: "BackendNotFound",
		})
		w.report(partial)
		w.says("True", "2/2")
		require.True(t, meta.IsStatusConditionFalse(w.status()[0].Conditions, "ResolvedRefs"))
	})
}

func TestStatusesAreRepairedAndTakenBack(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		w.says("True", "2/2")
		require.False(t, w.writer.Cleared())
		route := &gwv1.HTTPRoute{}
		require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "bookshop", Name: "reviews"}, route))
		route.Status.Parents = []gwv1.RouteParentStatus{
			{ControllerName: "example.org/other", ParentRef: w.parent, Conditions: []metav1.Condition{}},
		}
		require.NoError(t, w.client.Status().Update(t.Context(), route))
		w.writer.Touch(w.ref)
		synctest.Wait()
		require.Len(t, w.status(), 2)

		// The Mesh goes.
		w.report()
		require.Len(t, w.status(), 1)
		require.Equal(t, gwv1.GatewayController("example.org/other"), w.status()[0].ControllerName)
		require.True(t, w.writer.Cleared())
	})
}

func TestAnotherMeshsRouteIsLeftAlone(t *testing.T) {
	inWorld(t, func(w *world) {
		foreign := ingest.ParentReport{
			Ref: w.parent, Foreign: true, Unprogrammed: &ingest.Verdict{
				Reason:  "NamespaceNotEnrolled",
				Message: "the route is not accepted",
			},
			Conditions: []metav1.Condition{
				{Type: "Accepted", Status: "False", Reason: "NamespaceNotEnrolled", ObservedGeneration: 1},
			},
		}
		w.report(foreign)
		require.Len(t, w.status(), 1, "as long as nobody else says anything, the user is told")
		route := &gwv1.HTTPRoute{}
		require.NoError(t, w.client.Get(t.Context(), types.NamespacedName{Namespace: "bookshop", Name: "reviews"}, route))
		route.Status.Parents = append(route.Status.Parents, gwv1.RouteParentStatus{
			ControllerName: "istio.io/gateway-controller", ParentRef: w.parent, Conditions: []metav1.Condition{},
		})
		require.NoError(t, w.client.Status().Update(t.Context(), route))
		w.writer.Touch(w.ref)
		synctest.Wait()
		require.Len(t, w.status(), 1)
		require.Equal(t, gwv1.GatewayController("istio.io/gateway-controller"), w.status()[0].ControllerName)
	})
}

func TestARecreatedRouteIsAnotherRoute(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		route := &gwv1.HTTPRoute{}
		key := types.NamespacedName{Namespace: "bookshop", Name: "reviews"}
		require.NoError(t, w.client.Get(t.Context(), key, route))
		require.NoError(t, w.client.Delete(t.Context(), route))
		require.NoError(t, w.client.Create(
			t.Context(), &gwv1.HTTPRoute{ObjectMeta: metav1.ObjectMeta{
				Namespace: key.Namespace, Name: key.Name, UID: "2",
				Generation: 1,
			}}))
		w.writer.Touch(w.ref)
		synctest.Wait()
		require.Empty(t, w.status(), "what is known is about the old one")
		w.writer.Report(w.ref, &ingest.Report{Ref: w.ref, UID: "2", Generation: 1, Parents: []ingest.ParentReport{
			w.served(),
		}})
		synctest.Wait()
		w.says("True", "2/2")
	})
}

// TestAnEditOfAnotherRouteIsNoNews: a route whose table, or whose waypoint's listener, is sent anew for another one's
// sake is not looked at, unless answers stay out.
func TestAnEditOfAnotherRouteIsNoNews(t *testing.T) {
	inWorld(t, func(w *world) {
		w.report(w.served())
		w.noteChanged()
		w.says("True", "2/2")
		before := w.reads.Load()
		looks := func() int32 { return w.reads.Load() - before }
		for range 3 {
			w.book.say("a", table80, xds.Pending)
			w.noteChanged()
			w.book.say("a", table80, xds.Acked)
			w.noteChanged()
		}
		time.Sleep(2 * patience)
		synctest.Wait()
		require.Zero(t, looks(), "answered in time")

		w.book.say("a", table80, xds.Pending)
		w.noteChanged()
		time.Sleep(patience + status.HoldTime)
		w.says("True", "2/2")
		time.Sleep(patience + status.HoldTime)
		w.says("False", "1/2")
		w.book.say("a", table80, xds.Acked)
		w.noteChanged()
		w.says("True", "2/2")

		before = w.reads.Load()
		w.book.set("a", "b", "c") // another proxy
		w.noteChanged()
		require.EqualValues(t, 1, looks())
	})
}

// TestARejectionThatIsOverIsNotSaidForGood: of two proxies, one rejects what the other has yet to answer, and then both
// take what comes next, before anybody was looked at for it.
func TestARejectionThatIsOverIsNotSaidForGood(t *testing.T) {
	cluster := scope.Key(xds.TypeCluster, "service/bookshop/stock/80")
	inWorld(t, func(w *world) {
		served := w.served()
		served.Clusters = []string{cluster.Name}
		say := func(a, b xds.AckState) {
			w.book.say("a", cluster, a)
			w.book.say("b", cluster, b)
			w.writer.Acknowledged(cluster)
			synctest.Wait()
		}
		w.report(served)
		other := model.ObjectRef{Kind: ingest.KindHTTPRoute, Namespace: "bookshop", Name: "other"}
		w.writer.Report(other, &ingest.Report{Ref: other, Parents: []ingest.ParentReport{served}})
		say(xds.Acked, xds.Acked)
		w.says("True", "2/2")
		say(xds.Rejected, xds.Pending)
		w.report(served) // another edition of the route
		w.says("False", "rejects")
		say(xds.Acked, xds.Acked)
		time.Sleep(2 * patience)
		synctest.Wait()
		w.says("True", "2/2")
	})
}
