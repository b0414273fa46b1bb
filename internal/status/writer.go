// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/internal/leading"
	"github.com/fairway-mesh/fairway/internal/model"
)

const (
	workers = 4
	// retryFirst and retryMost bound the pause before a write is tried again that failed.
	retryFirst, retryMost = 20 * time.Millisecond, 30 * time.Second
)

// Kinds is what a Writer must know of the kinds of objects that it writes: R is the report that a status is made from,
// a value; M is what is remembered of an object from one rendering to the next.
type Kinds[R, M any] struct {
	// New makes an empty object of a kind.
	New func(kind string) client.Object
	// UID of the object that a report is about, for a later one of the name is another object; nil, or empty: of
	// whichever has the name.
	UID func(report R) types.UID
	// Render makes the object's status say what the report does.
	Render func(obj client.Object, report R, memory *M) Plan
	// Nothing tells that a report takes back all that the mesh said.
	Nothing func(report R) bool
	// Said, if there, is told each time that a status says its report; written: it had to be written.
	Said func(obj client.Object, report R, memory *M, written bool)
}

// Writer writes the statuses of objects that it has reports on, while its replica leads.
type Writer[R, M any] struct {
	kinds  Kinds[R, M]
	client client.Client
	lead   *leading.Lead
	log    logr.Logger
	queue  workqueue.TypedRateLimitingInterface[model.ObjectRef]

	mu      sync.Mutex
	reports map[model.ObjectRef]*report[R, M]
}

type report[R, M any] struct {
	says R
	seen *seen[M]
	// written: the status says so.
	written bool
}

// seen is what is kept of an object from one report to the next.
type seen[M any] struct {
	// memory and again are of the one worker that has the object. again is the next look that is planned.
	memory M
	again  *time.Timer
	// wrote is the version of the object that the last look wrote; empty: that look wrote nothing.
	wrote string
}

// NewWriter returns a writer that reads and writes objects through the client.
func NewWriter[R, M any](c client.Client, log logr.Logger, kinds Kinds[R, M]) *Writer[R, M] {
	return &Writer[R, M]{
		kinds: kinds, client: c, log: log,
		queue: workqueue.NewTypedRateLimitingQueue(
			workqueue.NewTypedItemExponentialFailureRateLimiter[model.ObjectRef](retryFirst, retryMost)),
		reports: map[model.ObjectRef]*report[R, M]{},
	}
}

// LedBy has the writer wait for the lead, before it starts; otherwise it is the only one there is.
func (w *Writer[R, M]) LedBy(lead *leading.Lead) { w.lead = lead }

// Report takes what an object's status is to say, given what it was to say before (the zero value if nothing). It does
// not block.
func (w *Writer[R, M]) Report(ref model.ObjectRef, now func(before R) R) {
	w.mu.Lock()
	defer w.mu.Unlock()
	next := &report[R, M]{seen: &seen[M]{}}
	if old := w.reports[ref]; old != nil {
		next.says, next.seen = old.says, old.seen
	}
	next.says = now(next.says)
	w.reports[ref] = next
	w.queue.Add(ref)
}

// Forget is for an object that is gone.
func (w *Writer[R, M]) Forget(ref model.ObjectRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.reports, ref)
}

// Touch looks at a status again: somebody changed the object, and may have overwritten it, or what it is rendered from
// besides its report changed. Of an object without a report nothing is known, so nothing is touched.
func (w *Writer[R, M]) Touch(ref model.ObjectRef) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.reports[ref] != nil {
		w.queue.Add(ref)
	}
}

// TouchVersion is Touch for a version of the object that was read. There is nothing to look at in what the writer wrote
// itself, unless it took an older version for the present one since.
func (w *Writer[R, M]) TouchVersion(ref model.ObjectRef, version string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if r := w.reports[ref]; r != nil && (version == "" || version != r.seen.wrote) {
		w.queue.Add(ref)
	}
}

// Cleared tells whether all that the mesh said is taken back, and nothing is left to write.
func (w *Writer[R, M]) Cleared() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, r := range w.reports {
		if !w.kinds.Nothing(r.says) || !r.written {
			return false
		}
	}
	return true
}

// Start writes until the context ends.
func (w *Writer[R, M]) Start(ctx context.Context) error {
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

func (w *Writer[R, M]) next(ctx context.Context) bool {
	ref, shutdown := w.queue.Get()
	if shutdown {
		return false
	}
	defer w.queue.Done(ref)
	term, done, err := w.lead.During(ctx)
	if err != nil {
		return true // the queue is about to shut down
	}
	defer done()
	err = w.write(term, ref)
	switch {
	case err == nil:
		w.queue.Forget(ref)
	case ctx.Err() != nil:
	case term.Err() != nil:
		w.queue.Add(ref)
	default:
		if !apierrors.IsConflict(err) {
			w.log.Error(err, "failed to write a status, trying again", "kind", ref.Kind, "namespace", ref.Namespace, "name",
				ref.Name)
		}
		w.queue.AddRateLimited(ref)
	}
	return true
}

func (w *Writer[R, M]) write(ctx context.Context, ref model.ObjectRef) error {
	w.mu.Lock()
	r := w.reports[ref]
	w.mu.Unlock()
	if r == nil {
		return nil
	}
	obj := w.kinds.New(ref.Kind)
	err := w.client.Get(ctx, types.NamespacedName{Namespace: ref.Namespace, Name: ref.Name}, obj)
	if err == nil && w.another(obj, r.says) {
		return nil // a report on the new one, or on its absence, is on its way
	}
	wrote, plan := false, Plan{}
	if err == nil {
		render := func(o client.Object) Plan { return w.kinds.Render(o, r.says, &r.seen.memory) }
		wrote, plan, err = Write(ctx, w.client, obj, render)
	}
	w.looked(ref, r.seen, obj, wrote && err == nil, plan)
	switch {
	case apierrors.IsNotFound(err):
		w.gone(ref, r)
		return nil
	case err != nil:
		return err
	}
	if plan.Wait {
		return nil
	}
	if w.kinds.Said != nil {
		w.kinds.Said(obj, r.says, &r.seen.memory, wrote)
	}
	w.mu.Lock()
	r.written = true
	w.mu.Unlock()
	return nil
}

// looked notes what a look at an object came to. Its plan replaces the one of the look before.
func (w *Writer[R, M]) looked(ref model.ObjectRef, s *seen[M], obj client.Object, wrote bool, plan Plan) {
	if s.again != nil {
		s.again.Stop()
		s.again = nil
	}
	if plan.Again > 0 {
		s.again = time.AfterFunc(plan.Again, func() { w.Touch(ref) })
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	s.wrote = ""
	if wrote {
		s.wrote = obj.GetResourceVersion()
	}
}

func (w *Writer[R, M]) another(obj client.Object, says R) bool {
	if w.kinds.UID == nil {
		return false
	}
	uid := w.kinds.UID(says)
	return uid != "" && uid != obj.GetUID()
}

// gone notes that there is nothing to write to. A report that says something stays: the object may be back before the
// next report.
func (w *Writer[R, M]) gone(ref model.ObjectRef, r *report[R, M]) {
	w.mu.Lock()
	defer w.mu.Unlock()
	r.written = true
	if w.reports[ref] == r && w.kinds.Nothing(r.says) {
		delete(w.reports, ref)
	}
}
