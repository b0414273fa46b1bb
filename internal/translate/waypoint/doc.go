// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package waypoint turns the model into the Envoy resources of waypoints. Every function is pure and total: any value
// of the model gives resources that Envoy accepts. What can't be expressed is reported as a RuleError and answered with
// an error, so that one route's mistake never stops another's.
//
// The way of a request:
//
//	peer ──mTLS──► listener "mtls": caller's SPIFFE ID kept as filter state
//	   └─► the server name (SNI) picks cluster inbound/<port>.<svc>.<ns>
//	        └─► internal listener service/<ns>/<svc>/<port>: HTTP with a route configuration of that name, or TCP
//	             └─► cluster service/<ns>/<svc>/<port>, endpoints waypoint/<ns>/<svc>/<port>
//	                  ├─► internal listener "tunnel" ─► cluster "tunnel" ──mTLS──► pod of the mesh
//	                  └─► plain TCP ──► pod outside the mesh
//
// A listener depends on a port and its protocol only. Everything that users edit is in route configurations and
// endpoints, so no edit ever drains a connection. The order of the HTTP filters is in filters.go.
package waypoint

import (
	"fmt"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// RuleError says that a rule of a route, or a part of it, can't be expressed. Ingest refuses such rules with a
// condition before they get here; what still comes is isolated and reported instead of making Envoy reject the whole
// resource.
type RuleError struct {
	Source    model.ObjectRef
	RuleName  string
	RuleIndex int
	// Dropped: the rule is left out because its match can't be expressed. Otherwise it answers an error.
	Dropped bool
	Err     error
}

// Error names the rule.
func (e *RuleError) Error() string {
	did := "answers an error"
	if e.Dropped {
		did = "is left out"
	}
	return fmt.Sprintf("%s %s/%s, rule %d %s: %v", e.Source.Kind, e.Source.Namespace, e.Source.Name, e.RuleIndex, did, e.Err)
}

// Unwrap returns the cause.
func (e *RuleError) Unwrap() error { return e.Err }

func listenerName(p model.ServicePort) string {
	return names.ServicePort(p.Namespace, p.Service, p.Port)
}

func clusterName(p model.ServicePort) string {
	return names.ServicePort(p.Namespace, p.Service, p.Port)
}
