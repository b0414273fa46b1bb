// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package status

import (
	"context"
	"sync"
	"time"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/equality"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"k8s.io/client-go/util/workqueue"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/ingest"
)

// ServiceWriter writes the one condition that the mesh has for Services: which waypoint serves it. Services that have
// none carry no condition.
type ServiceWriter struct {
	client client.Client
	events events.EventRecorder
	log    logr.Logger
	queue  workqueue.TypedRateLimitingInterface[types.NamespacedName]

	mu       sync.Mutex
	bindings map[types.NamespacedName]ingest.Binding
	// partial are Services some of whose endpoints proxies don't know; true: it is still to be said.
	partial map[types.NamespacedName]bool
	// unwritten counts what was said of a Service since its condition was last written.
	unwritten map[types.NamespacedName]int
}

// NewServiceWriter returns a writer that must run on the leader only.
func NewServiceWriter(c client.Client, r events.EventRecorder, log logr.Logger) *ServiceWriter {
	return &ServiceWriter{
		client: c, events: r, log: log, bindings: map[types.NamespacedName]ingest.Binding{},
		partial:   map[types.NamespacedName]bool{},
		unwritten: map[types.NamespacedName]int{},
		queue: workqueue.NewTypedRateLimitingQueue(workqueue.NewTypedItemExponentialFailureRateLimiter[types.NamespacedName](
			20*time.Millisecond, 30*time.Second)),
	}
}

// NeedLeaderElection is true.
func (w *ServiceWriter) NeedLeaderElection() bool { return true }

// Bound takes the binding of a Service. It does not block.
func (w *ServiceWriter) Bound(svc types.NamespacedName, b ingest.Binding) {
	w.mu.Lock()
	if b.None() {
		delete(w.bindings, svc)
	} else {
		w.bindings[svc] = b
	}
	w.unwritten[svc]++
	w.mu.Unlock()
	// A Service may carry the condition from before a restart: always look
	w.queue.Add(svc)
}

// Partial takes whether proxies know only some of a Service's endpoints. It does not block.
func (w *ServiceWriter) Partial(svc types.NamespacedName, partial bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.partial, svc)
	if partial {
		w.partial[svc] = true
		w.queue.Add(svc)
	}
}

// sayPartial does so once.
func (w *ServiceWriter) sayPartial(svc *corev1.Service, key types.NamespacedName) {
	w.mu.Lock()
	say := w.partial[key]
	if say {
		w.partial[key] = false
	}
	w.mu.Unlock()
	if say {
		w.events.Eventf(svc, nil, corev1.EventTypeWarning, v1alpha1.ServiceReasonEndpointsLeftOut, "Balance", "proxies know only some of the endpoints: "+
			"each counted for each port, a Service may have %d, and all of namespace %s together %d, so this one has too many (use "+
			"fewer ports, or several Services and namespaces)",
			ingest.MostEndpointsOfService, key.Namespace, ingest.MostEndpointsOfNamespace)
	}
}

// Touch looks at a Service's condition again: somebody changed the Service, and may have overwritten it.
func (w *ServiceWriter) Touch(svc types.NamespacedName) { w.queue.Add(svc) }

// Cleared tells whether every condition that the mesh wrote is taken back, and nothing is left to write.
func (w *ServiceWriter) Cleared() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.bindings) == 0 && len(w.unwritten) == 0
}

// Start writes until the context ends.
func (w *ServiceWriter) Start(ctx context.Context) error {
	context.AfterFunc(ctx, w.queue.ShutDown)
	for {
		svc, shutdown := w.queue.Get()
		if shutdown {
			return nil
		}
		w.mu.Lock()
		turn := w.unwritten[svc]
		w.mu.Unlock()
		if err := w.write(ctx, svc); err != nil && !apierrors.IsNotFound(err) && ctx.Err() == nil {
			if !apierrors.IsConflict(err) {
				w.log.Error(err, "a Service's condition could not be written and will be tried again", "service", svc)
			}
			w.queue.AddRateLimited(svc)
		} else {
			w.queue.Forget(svc)
			w.wrote(svc, turn)
		}
		w.queue.Done(svc)
	}
}

// wrote notes that all is written that had been said by a turn.
func (w *ServiceWriter) wrote(svc types.NamespacedName, turn int) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.unwritten[svc] == turn {
		delete(w.unwritten, svc)
	}
}

func (w *ServiceWriter) write(ctx context.Context, key types.NamespacedName) error {
	w.mu.Lock()
	b, bound := w.bindings[key]
	w.mu.Unlock()
	svc := &corev1.Service{}
	if err := w.client.Get(ctx, key, svc); err != nil {
		return err
	}
	w.sayPartial(svc, key)
	before := svc.DeepCopy()
	now := boundCondition(b)
	if !bound {
		meta.RemoveStatusCondition(&svc.Status.Conditions, v1alpha1.ServiceConditionWaypointBound)
	} else {
		meta.SetStatusCondition(&svc.Status.Conditions, now)
	}
	if equality.Semantic.DeepEqual(before.Status.Conditions, svc.Status.Conditions) {
		return nil
	}
	if err := w.client.Status().Patch(ctx, svc, client.StrategicMergeFrom(before)); err != nil {
		return err
	}
	// kubectl describe shows no conditions of a Service.
	if b.Problem != "" || b.Unsupported != "" || b.Spreads {
		w.events.Eventf(svc, nil, corev1.EventTypeWarning, now.Reason, "Bind", "%s", now.Message)
	}
	return nil
}

func boundCondition(b ingest.Binding) metav1.Condition {
	c := metav1.Condition{
		Type: v1alpha1.ServiceConditionWaypointBound, Status: metav1.ConditionTrue, Reason: v1alpha1.ServiceReasonWaypointAccepted,
		Message: "connections from the mesh go through waypoint " + b.Waypoint.String(),
	}
	if len(b.Callers) > 0 {
		c.Message = b.Connections() + ", which have routes for the Service, go through waypoint " + b.Waypoint.String() + "; all others go straight to the Service"
	}
	if b.Spreads {
		c.Message += ", which spreads them over the endpoints of all nodes: internalTrafficPolicy Local does not hold for them"
	}
	switch {
	case b.Unsupported != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ServiceReasonNotSupported, b.Unsupported+": its connections are as they would be without the label"
	case b.Problem != "":
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ServiceReasonWaypointMissing, b.Problem+": "+b.Connections()+" are refused"
	case b.Pending:
		c.Status, c.Reason, c.Message = metav1.ConditionFalse, v1alpha1.ServiceReasonWaypointPending,
			"waypoint "+b.Waypoint.String()+" is being created: connections go straight to the Service meanwhile"
	}
	return c
}
