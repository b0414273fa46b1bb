// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package explain

import (
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"sigs.k8s.io/controller-runtime/pkg/client"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/fairway-mesh/fairway/internal/conditions"
	"github.com/fairway-mesh/fairway/internal/model"
)

// Of is what objects mean that somebody else has read. What is not among them counts as not being there, so ask it
// nothing that hangs on what could not be read.
func Of(objects []client.Object) *Mesh { return newMesh(objects) }

// Binding says where connections to a Service go, as the operator would write it into the Service's status.
type Binding struct {
	// Waypoint that they go through, by its Gateway; zero: none. It may not run.
	Waypoint types.NamespacedName
	// Pending: it has never served, and connections go straight to the Service until it does.
	Pending bool
	// Problem says why connections are refused, and what to do; empty: they are not. Connections are those that it is
	// about.
	Problem, Connections string
	// NoEffect says why the Service's label has none.
	NoEffect string
}

// Binding of a Service; the zero value where there is no Mesh.
func (m *Mesh) Binding(service types.NamespacedName) Binding {
	b := m.ingest.Bound.Get(nil, service)
	return Binding{
		Waypoint: b.Waypoint, Pending: b.Pending, Problem: b.Problem, Connections: b.Connections(),
		NoEffect: b.Unsupported,
	}
}

// NamedProblem says why a waypoint can't serve that a label names; empty if it can.
func (m *Mesh) NamedProblem(waypoint types.NamespacedName) string {
	return m.ingest.NamedProblem(nil, waypoint)
}

// Parent is what the operator would say of one parentRef of a route.
type Parent struct {
	Ref gwv1.ParentReference
	// Refused says why the route isn't accepted; nil if it is.
	Refused *conditions.Verdict
	// Foreign: another controller may answer.
	Foreign bool
}

// Parents of a route that the mesh answers; none where there is no Mesh, and for parents that are others' to answer.
func (m *Mesh) Parents(kind string, route types.NamespacedName) (out []Parent) {
	r := m.ingest.Report.Get(nil, model.ObjectRef{Kind: kind, Namespace: route.Namespace, Name: route.Name})
	if r == nil {
		return nil
	}
	for _, p := range r.Parents {
		parent := Parent{Ref: p.Ref, Foreign: p.Foreign}
		c := meta.FindStatusCondition(p.Conditions, string(gwv1.RouteConditionAccepted))
		if c != nil && c.Status == metav1.ConditionFalse {
			parent.Refused = &conditions.Verdict{Reason: c.Reason, Message: c.Message}
		}
		out = append(out, parent)
	}
	return out
}
