// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package status is the only writer of route statuses. It joins the report that ingest made with what the proxies
// acknowledged, writes nothing that is there already, and leaves the entries of other controllers alone.
package status

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/go-logr/logr"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// patience is how long an answer of the proxies is awaited before a status says Pending: an edit that is
	// acknowledged at once costs one write, not two.
	patience = 300 * time.Millisecond
	// hold is how long a route stays Programmed, with the count that it has, while proxies are away or new ones come: a
	// restart of the operator, a rollout and a new stream must not cost a write, or two, of every route.
	hold    = 15 * time.Second
	workers = 4
)

// Search is how long the operator is given to find out which rule a rejected route table is rejected for, and to leave
// it out. Until then nothing is said: it is the fault of one route, and most likely of another one.
const Search = 5 * time.Second

// Writer writes the statuses of routes. It must run on the leader only.
type Writer struct {
	client client.Client
	acks   Acknowledgements
	log    logr.Logger
	queue  workqueue.TypedRateLimitingInterface[model.ObjectRef]

	mu     sync.Mutex
	routes map[model.ObjectRef]*route
	// users lists the routes whose status depends on a resource.
	users map[xds.Key]map[model.ObjectRef]struct{}
}

// route is what a status is written from.
type route struct {
	report *ingest.RouteReport
	// moved: other waypoints serve it than those that its status was written about.
	moved bool
	// unsettled and held are since when an answer is awaited, and since when the status says what was true before; zero
	// where that is not so.
	unsettled, held time.Time
	// rejected is since when a proxy rejects a route table that the route is part of.
	rejected time.Time
	// written: the status says what is to be said.
	written bool
}

// NewWriter returns a writer that reads and writes routes through the client.
func NewWriter(c client.Client, acks Acknowledgements, log logr.Logger) *Writer {
	return &Writer{
		client: c, acks: acks, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[model.ObjectRef](
			20*time.Millisecond, 30*time.Second)),
		routes: map[model.ObjectRef]*route{},
		users:  map[xds.Key]map[model.ObjectRef]struct{}{},
	}
}

// NeedLeaderElection makes the manager run the writer on the leader only.
func (w *Writer) NeedLeaderElection() bool { return true }

// Report takes what a route's status is to say; nil where the route is gone. It does not block.
func (w *Writer) Report(ref model.ObjectRef, report *ingest.RouteReport) {
	w.mu.Lock()
	defer w.mu.Unlock()
	old := w.routes[ref]
	if old != nil {
		w.unlink(ref, old.report)
	}
	if report == nil {
		delete(w.routes, ref)
		return
	}
	now := &route{report: report}
	if old != nil {
		now.moved = old.moved || moved(old.report, report)
		now.unsettled, now.held, now.rejected = old.unsettled, old.held, old.rejected
	}
	w.routes[ref] = now
	w.link(ref, report)
	w.queue.Add(ref)
}

func (w *Writer) link(ref model.ObjectRef, report *ingest.RouteReport) {
	for _, p := range report.Parents {
		for _, r := range resourcesOf(p) {
			if w.users[r] == nil {
				w.users[r] = map[model.ObjectRef]struct{}{}
			}
			w.users[r][ref] = struct{}{}
		}
	}
}

func (w *Writer) unlink(ref model.ObjectRef, report *ingest.RouteReport) {
	for _, p := range report.Parents {
		for _, r := range resourcesOf(p) {
			delete(w.users[r], ref)
			if len(w.users[r]) == 0 {
				delete(w.users, r)
			}
		}
	}
}

// moved tells whether other waypoints than before serve a route.
func moved(old, now *ingest.RouteReport) bool {
	return !slices.EqualFunc(old.Parents, now.Parents, func(a, b ingest.ParentReport) bool { return a.Waypoint == b.Waypoint })
}

// Touch looks at a route's status again: somebody changed the route, and may have overwritten it.
func (w *Writer) Touch(ref model.ObjectRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.routes[ref] != nil {
		w.queue.Add(ref)
	}
}

// Acknowledged says that proxies answered, came or went; it is for xds.Server.OnChange.
func (w *Writer) Acknowledged(k xds.Key) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for ref := range w.users[k] {
		w.queue.Add(ref)
	}
}

// Cleared tells whether every status that the mesh wrote is taken back: there is no Mesh (any more), and nothing is
// left to write.
func (w *Writer) Cleared() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.routes {
		if len(r.report.Parents) > 0 || !r.written {
			return false
		}
	}
	return true
}

// Start writes until the context ends.
func (w *Writer) Start(ctx context.Context) error {
	var wg sync.WaitGroup
	for range workers {
		wg.Go(func() {
			for w.next(ctx) {
			}
		})
	}
	<-ctx.Done()
	w.queue.ShutDown()
	wg.Wait()
	return nil
}

func (w *Writer) next(ctx context.Context) bool {
	ref, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(ref)
	err := w.write(ctx, ref)
	switch {
	case err == nil || apierrors.IsNotFound(err):
		w.queue.Forget(ref)
	case ctx.Err() != nil:
	default:
		if !apierrors.IsConflict(err) {
			w.log.Error(err, "a status could not be written and will be tried again", "kind", ref.Kind, "namespace", ref.Namespace, "name", ref.Name)
		}
		w.queue.AddRateLimited(ref)
	}
	return true
}

func (w *Writer) write(ctx context.Context, ref model.ObjectRef) error {
	w.mu.Lock()
	r := w.routes[ref]
	w.mu.Unlock()
	if r == nil {
		return nil
	}
	obj, current := newRoute(ref.Kind)
	if err := w.client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, obj); err != nil {
		return err
	}
	if r.report.UID != "" && obj.GetUID() != r.report.UID {
		return nil // a report on the new one, or on its absence, is on its way
	}
	ours := w.parents(r.report, current.Parents)
	if !w.settle(ref, r, current.Parents, ours) {
		return nil
	}
	merged := merge(current.Parents, ours)
	if !equality.Semantic.DeepEqual(current.Parents, merged) {
		current.Parents = merged
		if err := w.client.Status().Update(ctx, obj); err != nil {
			return err
		}
	}
	w.mu.Lock()
	r.written = true
	w.mu.Unlock()
	return nil
}

// parents is what is to be said, of the proxies as they are now.
func (w *Writer) parents(report *ingest.RouteReport, written []gwv1.RouteParentStatus) []gwv1.RouteParentStatus {
	var out []gwv1.RouteParentStatus
	for _, p := range report.Parents {
		if p.Foreign && othersSay(written, p.Ref) {
			continue // it is another mesh's Service, and the route works there
		}
		out = append(out, gwv1.RouteParentStatus{
			ParentRef: p.Ref, ControllerName: names.MeshController,
			Conditions: append(append([]metav1.Condition{}, p.Conditions...), programmed(p, report.Generation, w.acks)),
		})
	}
	return out
}

func othersSay(written []gwv1.RouteParentStatus, ref gwv1.ParentReference) bool {
	return slices.ContainsFunc(written, func(p gwv1.RouteParentStatus) bool {
		return p.ControllerName != names.MeshController && equality.Semantic.DeepEqual(p.ParentRef, ref)
	})
}

// settle waits where an answer of proxies is missing that may come any moment. ok is false if nothing is to be written
// now. A route that is Programmed stays so, in ours, while it is held: it lost proxies, or got new ones, and its
// generation is still the one that they serve.
func (w *Writer) settle(ref model.ObjectRef, r *route, written, ours []gwv1.RouteParentStatus) (ok bool) {
	rejected := tableRejected(r.report, w.acks)
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.within(ref, &r.rejected, rejected, Search) {
		return false
	}
	unsettled, waiting := false, false
	held := map[*metav1.Condition]metav1.Condition{}
	for _, p := range ours {
		c := &p.Conditions[len(p.Conditions)-1]
		waiting = waiting || waits(*c)
		old := programmedBefore(written, p)
		switch {
		case old != nil && !r.moved && (waits(*c) || c.Status == metav1.ConditionTrue && c.Message != old.Message):
			held[c] = *old
		case c.Reason == v1alpha1.RouteReasonPending:
			unsettled = true
		}
	}
	r.moved = r.moved && waiting
	if w.within(ref, &r.held, len(held) > 0, hold) {
		for c, old := range held {
			*c = old
		}
	}
	return !w.within(ref, &r.unsettled, unsettled, patience)
}

// programmedBefore is the condition that says that the same generation is programmed; nil if there is none.
func programmedBefore(written []gwv1.RouteParentStatus, now gwv1.RouteParentStatus) *metav1.Condition {
	for _, p := range written {
		if p.ControllerName != names.MeshController || !equality.Semantic.DeepEqual(p.ParentRef, now.ParentRef) {
			continue
		}
		old := meta.FindStatusCondition(p.Conditions, v1alpha1.RouteConditionProgrammed)
		if old != nil && old.Status == metav1.ConditionTrue && old.ObservedGeneration == now.Conditions[len(now.Conditions)-1].ObservedGeneration {
			return old
		}
	}
	return nil
}

// within tells whether something has been so for less than a while, and then looks at the route again at its end.
func (w *Writer) within(ref model.ObjectRef, since *time.Time, so bool, while time.Duration) bool {
	if !so {
		*since = time.Time{}
		return false
	}
	if since.IsZero() {
		*since = time.Now()
	}
	left := while - time.Since(*since)
	if left <= 0 {
		return false
	}
	w.queue.AddAfter(ref, left)
	return true
}

// merge replaces our entries and keeps those of others. Times of conditions that did not change stay.
func merge(old, ours []gwv1.RouteParentStatus) []gwv1.RouteParentStatus {
	out := make([]gwv1.RouteParentStatus, 0, len(old)+len(ours))
	for _, p := range old {
		if p.ControllerName != names.MeshController {
			out = append(out, p)
		}
	}
	for _, p := range ours {
		var conditions []metav1.Condition
		for _, o := range old {
			if o.ControllerName == names.MeshController && equality.Semantic.DeepEqual(o.ParentRef, p.ParentRef) {
				conditions = keep(o.Conditions, p.Conditions)
			}
		}
		for _, c := range p.Conditions {
			meta.SetStatusCondition(&conditions, c)
		}
		p.Conditions = conditions
		out = append(out, p)
	}
	return out
}

// keep drops the conditions that are no longer said.
func keep(old, now []metav1.Condition) []metav1.Condition {
	var out []metav1.Condition
	for _, c := range old {
		if meta.FindStatusCondition(now, c.Type) != nil {
			out = append(out, c)
		}
	}
	return out
}

func newRoute(kind string) (client.Object, *gwv1.RouteStatus) {
	if kind == ingest.KindGRPCRoute {
		r := &gwv1.GRPCRoute{}
		return r, &r.Status.RouteStatus
	}
	r := &gwv1.HTTPRoute{}
	return r, &r.Status.RouteStatus
}
