// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package member

import (
	corev1 "k8s.io/api/core/v1"

	"github.com/fairway-mesh/fairway/internal/names"
)

// WaypointUse is what labels say of the waypoint of a Service. The zero value leaves it to the operator: an automatic
// one, once there is a reason for it.
type WaypointUse struct {
	label string
	// Own: the Service says it, not its namespace.
	Own bool
}

// UseOf reads the label of a Service, else that of its namespace. Both may be nil.
func UseOf(service *corev1.Service, namespace *corev1.Namespace) WaypointUse {
	if service != nil && service.Labels[names.LabelUseWaypoint] != "" {
		return WaypointUse{label: service.Labels[names.LabelUseWaypoint], Own: true}
	}
	if namespace != nil {
		return WaypointUse{label: namespace.Labels[names.LabelUseWaypoint]}
	}
	return WaypointUse{}
}

// None tells that no waypoint is wanted, whatever there is.
func (u WaypointUse) None() bool { return u.label == names.UseWaypointNone }

// Automatic tells that the waypoint is the operator's to make, if any is needed.
func (u WaypointUse) Automatic() bool { return u.label == "" || u.label == names.UseWaypointAuto }

// Gateway is the name of the waypoint's Gateway, in the Service's namespace; empty where none is wanted.
func (u WaypointUse) Gateway() string {
	switch {
	case u.None():
		return ""
	case u.Automatic():
		return names.AutomaticWaypoint
	}
	return u.label
}
