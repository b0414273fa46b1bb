// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package status is the only writer of route statuses. It joins the report that ingest made with what the proxies
// acknowledged, writes nothing that is there already, and leaves the entries of other controllers alone.
package status

import (
	"context"
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

	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

const (
	// patience is how long an answer of the proxies is awaited before a status says Pending: an edit that is
	// acknowledged at once costs one write, not two.
	patience = 300 * time.Millisecond
	workers  = 4
)

// Writer writes the statuses of routes. It must run on the leader only.
type Writer struct {
	client client.Client
	acks   Acknowledgements
	log    logr.Logger
	queue  workqueue.TypedRateLimitingInterface[model.ObjectRef]

	mu      sync.Mutex
	reports map[model.ObjectRef]*ingest.RouteReport
	// users lists the routes whose status depends on a resource of a scope.
	users map[resource]map[model.ObjectRef]struct{}
	since map[model.ObjectRef]time.Time // when a route was first found unsettled
}

type resource struct{ scope, name string }

// NewWriter returns a writer that reads and writes routes through the client.
func NewWriter(c client.Client, acks Acknowledgements, log logr.Logger) *Writer {
	return &Writer{
		client: c, acks: acks, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[model.ObjectRef](
			20*time.Millisecond, 30*time.Second)),
		reports: map[model.ObjectRef]*ingest.RouteReport{},
		users:   map[resource]map[model.ObjectRef]struct{}{},
		since:   map[model.ObjectRef]time.Time{},
	}
}

// NeedLeaderElection makes the manager run the writer on the leader only.
func (w *Writer) NeedLeaderElection() bool { return true }

// Report takes what a route's status is to say; nil where the route is gone. It does not block.
func (w *Writer) Report(ref model.ObjectRef, report *ingest.RouteReport) {
	w.mu.Lock()
	w.unlink(ref)
	if report == nil {
		delete(w.reports, ref)
		delete(w.since, ref)
	} else {
		w.reports[ref] = report
		for _, r := range resourcesOf(report) {
			if w.users[r] == nil {
				w.users[r] = map[model.ObjectRef]struct{}{}
			}
			w.users[r][ref] = struct{}{}
		}
	}
	w.mu.Unlock()
	if report != nil {
		w.queue.Add(ref)
	}
}

func (w *Writer) unlink(ref model.ObjectRef) {
	old := w.reports[ref]
	if old == nil {
		return
	}
	for _, r := range resourcesOf(old) {
		delete(w.users[r], ref)
		if len(w.users[r]) == 0 {
			delete(w.users, r)
		}
	}
}

// resourcesOf lists what a route waits for; the empty name stands for the proxies of the scope themselves.
func resourcesOf(report *ingest.RouteReport) []resource {
	var out []resource
	for _, p := range report.Parents {
		if p.Waypoint.Name == "" {
			continue
		}
		scope := names.WaypointScope(p.Waypoint.Namespace, p.Waypoint.Name)
		out = append(out, resource{scope, ""})
		for _, port := range p.Ports {
			out = append(out, resource{scope, names.ServicePort(port.Namespace, port.Service, port.Port)})
		}
	}
	return out
}

// Acknowledged says that proxies answered, came or went; it is for xds.Server.OnChange.
func (w *Writer) Acknowledged(scope, typeURL, name string) {
	if typeURL != xds.TypeRoute {
		return
	}
	if name == names.RouteHBONE {
		name = "" // every proxy of a waypoint has this one: it comes and goes with the proxy
	}
	w.mu.Lock()
	var refs []model.ObjectRef
	for ref := range w.users[resource{scope, name}] {
		refs = append(refs, ref)
	}
	w.mu.Unlock()
	for _, ref := range refs {
		w.queue.Add(ref)
	}
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
	report := w.reports[ref]
	w.mu.Unlock()
	if report == nil {
		return nil
	}
	parents, settled := w.parents(report)
	if !settled && w.wait(ref) {
		return nil
	}
	if settled {
		w.mu.Lock()
		delete(w.since, ref)
		w.mu.Unlock()
	}
	obj, current := newRoute(ref.Kind)
	if err := w.client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, obj); err != nil {
		return err
	}
	merged := merge(current.Parents, parents)
	if equality.Semantic.DeepEqual(current.Parents, merged) {
		return nil
	}
	current.Parents = merged
	return w.client.Status().Update(ctx, obj)
}

// wait puts a write off while answers are still to be expected, for no longer than patience.
func (w *Writer) wait(ref model.ObjectRef) bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	first, ok := w.since[ref]
	if !ok {
		first = time.Now()
		w.since[ref] = first
	}
	left := patience - time.Since(first)
	if left <= 0 {
		return false
	}
	w.queue.AddAfter(ref, left)
	return true
}

func (w *Writer) parents(report *ingest.RouteReport) (out []gwv1.RouteParentStatus, settled bool) {
	settled = true
	for _, p := range report.Parents {
		c, ok := programmed(p, report.Generation, w.acks)
		settled = settled && ok
		out = append(out, gwv1.RouteParentStatus{
			ParentRef: p.Ref, ControllerName: names.MeshController,
			Conditions: append(append([]metav1.Condition{}, p.Conditions...), c),
		})
	}
	return out, settled
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
