// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package serving

import (
	"fmt"

	"github.com/go-logr/logr"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/events"
	"sigs.k8s.io/controller-runtime/pkg/client"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/ingest"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/status"
)

// Services writes the one condition that the mesh has for Services: which waypoint serves it. Services that have none
// carry no condition.
type Services struct {
	*status.Writer[serviceReport, serviceMemory]
	events events.EventRecorder
}

// serviceReport is what is known of a Service.
type serviceReport struct {
	// binding is nil until it is known. Until then nothing is written: what the Service says of its waypoint, from
	// before a restart, decides who may reach it.
	binding *ingest.Binding
	// leftOut are its endpoints that proxies don't know.
	leftOut ingest.LeftOut
}

// bound is the binding; none where there is nothing to say.
func (r serviceReport) bound() (b ingest.Binding, ok bool) {
	if r.binding == nil || r.binding.None() {
		return b, false
	}
	return *r.binding, true
}

// serviceMemory is about one Service.
type serviceMemory struct {
	// leftOut has been told by Events.
	leftOut ingest.LeftOut
}

// NewServices returns the writer of Services' statuses.
func NewServices(c client.Client, r events.EventRecorder, log logr.Logger) *Services {
	s := &Services{events: r}
	s.Writer = status.NewWriter(c, log, status.Kinds[serviceReport, serviceMemory]{
		New:    func(string) client.Object { return &corev1.Service{} },
		Render: renderService,
		Nothing: func(report serviceReport) bool {
			_, bound := report.bound()
			return !bound
		},
		Said: s.said,
	})
	return s
}

func serviceRef(svc types.NamespacedName) model.ObjectRef {
	return model.ObjectRef{Kind: "Service", Namespace: svc.Namespace, Name: svc.Name}
}

// Bound takes the binding of a Service. It does not block.
func (s *Services) Bound(svc types.NamespacedName, b ingest.Binding) {
	s.Report(serviceRef(svc), func(r serviceReport) serviceReport {
		r.binding = &b
		return r
	})
}

// LeftOut takes which of a Service's endpoints proxies don't know. It does not block.
func (s *Services) LeftOut(svc types.NamespacedName, out ingest.LeftOut) {
	s.Report(serviceRef(svc), func(r serviceReport) serviceReport {
		r.leftOut = out
		return r
	})
}

// Touch looks at a Service's condition again: somebody changed the Service, and may have overwritten it.
func (s *Services) Touch(svc types.NamespacedName) { s.Writer.Touch(serviceRef(svc)) }

func renderService(obj client.Object, report serviceReport, _ *serviceMemory) status.Plan {
	if report.binding == nil {
		return status.Plan{Wait: true}
	}
	svc := obj.(*corev1.Service) //nolint:forcetypeassert // New makes no other
	c := conditions.For(0, svc.Status.Conditions)
	if b, bound := report.bound(); bound {
		c.Put(boundCondition(b))
	} else {
		c.Remove(v1alpha1.ServiceConditionWaypointBound)
	}
	svc.Status.Conditions = c.List()
	return status.Plan{}
}

// said makes Events of what a person should mend, for kubectl describe shows no conditions of a Service.
func (s *Services) said(svc client.Object, report serviceReport, memory *serviceMemory, written bool) {
	if report.leftOut.TooMany && !memory.leftOut.TooMany {
		s.warn(svc, v1alpha1.ServiceReasonEndpointsLeftOut, "Balance", fmt.Sprintf(
			"Proxies get only some of the endpoints: counted once for each port, a Service may have %d, and all Services of "+
				"namespace %s together %d (use fewer ports, or several Services and namespaces).",
			ingest.MostEndpointsOfService, svc.GetNamespace(), ingest.MostEndpointsOfNamespace))
	}
	if stray := report.leftOut.Stray; stray != "" && memory.leftOut.Stray == "" {
		s.warn(svc, v1alpha1.ServiceReasonEndpointsLeftOut, "Guard", fmt.Sprintf(
			"Waypoints leave out endpoint %s: the Service doesn't choose that pod at that port, so they don't ask the "+
				"AuthorizationPolicies that guard it. Correct the EndpointSlices, or the Service's selector and ports.", stray))
	}
	if outsider := report.leftOut.Outsider; outsider != "" && memory.leftOut.Outsider == "" {
		s.warn(svc, v1alpha1.ServiceReasonEndpointsLeftOut, "Guard", fmt.Sprintf(
			"Waypoints of other namespaces leave out endpoint %s: it is no pod's of namespace %s, and a route for a Service of "+
				"another namespace leads from its waypoint to pods of the route's own namespace only. Correct the "+
				"EndpointSlices, or the route.", outsider, svc.GetNamespace()))
	}
	if waypoint := report.leftOut.Waypoint; waypoint != "" && memory.leftOut.Waypoint == "" {
		s.warn(svc, v1alpha1.ServiceReasonEndpointsLeftOut, "Balance", fmt.Sprintf(
			"Waypoint %s gets only some of the endpoints: in the waypoint of another namespace, the Services of a namespace "+
				"may have %d, and those of all together %d in equal parts, counted once for each port (use fewer or smaller "+
				"Services).", waypoint, ingest.MostEndpointsOfForeign, ingest.MostEndpointsOfForeigns))
	}
	memory.leftOut = report.leftOut
	if b, bound := report.bound(); bound && written && (b.Problem != "" || b.Unsupported != "" || b.Spreads) {
		c := boundCondition(b)
		s.warn(svc, c.Reason, "Bind", c.Message)
	}
}

func (s *Services) warn(svc client.Object, reason, action, text string) {
	s.events.Eventf(svc, nil, corev1.EventTypeWarning, reason, action, "%s", conditions.Note(text))
}

func boundCondition(b ingest.Binding) metav1.Condition {
	say := func(is metav1.ConditionStatus, reason, message string) metav1.Condition {
		return conditions.New(v1alpha1.ServiceConditionWaypointBound, is, reason, message, 0)
	}
	switch {
	case b.Unsupported != "":
		return say(metav1.ConditionFalse, v1alpha1.ServiceReasonNotSupported,
			b.Unsupported+": the label has no effect")
	case b.Problem != "":
		reason := v1alpha1.ServiceReasonWaypointMissing
		if b.OverBudget {
			reason = v1alpha1.ServiceReasonOverBudget
		}
		return say(metav1.ConditionFalse, reason, b.Problem+"; until then, "+b.Connections()+" are refused")
	case b.Pending:
		return say(metav1.ConditionFalse, v1alpha1.ServiceReasonWaypointPending,
			"Waypoint "+b.Waypoint.String()+" is being created: until then, connections go straight to the Service, and are "+
				"refused at ports where policies decide on requests")
	}
	return say(metav1.ConditionTrue, v1alpha1.ServiceReasonWaypointAccepted, accepted(b))
}

func accepted(b ingest.Binding) string {
	out := "Connections from the mesh go through waypoint " + b.Waypoint.String()
	if len(b.Callers) > 0 {
		out = b.Connections() + ", which have routes for the Service, go through waypoint " + b.Waypoint.String() +
			"; all others go straight to the Service"
	}
	if b.Spreads {
		out += ", which balances them over the endpoints of all nodes: internalTrafficPolicy Local doesn't apply to them"
	}
	return out
}
