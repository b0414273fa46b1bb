// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package waypoint turns the model into the Envoy resources of waypoints. Every function is pure and total: any value
// of the model gives resources that Envoy accepts. What can't be expressed is reported as a RuleError and answered with
// an error, so that one route's mistake never stops another's.
//
// The way of a request:
//
//	peer ──mTLS──► listener "mtls": the server name (SNI) is a service port, and picks the filter chain
//	   ├─► http: the scope of that name leads to route configuration service/<ns>/<svc>/<port>
//	   │    └─► cluster service/<ns>/<svc>/<port> ─┐
//	   └─► tcp: cluster inbound/<port>.<svc>.<ns> ─┴─► endpoints waypoint/<ns>/<svc>/<port>
//	        ├──mTLS──► pod of the mesh
//	        └──TCP───► pod outside the mesh
//
// A connection is never handed from listener to listener within the proxy: Envoy doesn't tell a side that waits to write that
// the other one is gone (its issue 38148), and a reset would become an ordinary end.
//
// The listener depends on which ports there are and whether they are HTTP; its filter chains on neither. Everything that
// users edit is in route configurations and endpoints, so no edit ever drains a connection. The order of the HTTP filters is
// in filters.go.
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

func tableName(p model.ServicePort) string {
	return names.ServicePort(p.Namespace, p.Service, p.Port)
}

func clusterName(p model.ServicePort) string {
	return names.ServicePort(p.Namespace, p.Service, p.Port)
}
