// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package catalogue says what kinds of proxies the mesh has, how the scope of each is named, and what its resources say
// about it: which of them proves that a proxy serves, and which a status depends on. It is the one place that engine,
// statuses, the operator's replicas and the agents ask.
package catalogue

import (
	"strings"

	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// Kind of a proxy.
type Kind string

// The kinds of proxies: one per node, and those of a Gateway.
const (
	Node     Kind = names.ComponentNode
	Waypoint Kind = names.ComponentWaypoint
)

// AllNodes stands for the scopes of all node proxies together.
var AllNodes = xds.AllOf(string(Node))

// NodeScope is the scope of a node's proxy.
func NodeScope(node string) xds.Scope { return xds.Scope(string(Node) + "/" + node) }

// WaypointScope is the scope of the proxies of a waypoint, by its Gateway.
func WaypointScope(gateway types.NamespacedName) xds.Scope {
	return xds.Scope(string(Waypoint) + "/" + gateway.Namespace + "/" + gateway.Name)
}

// owner is whose proxies a scope is for.
type owner struct {
	kind Kind
	// name is the Node's, or the Gateway's.
	name types.NamespacedName
}

// ownerOf is the inverse of NodeScope and WaypointScope; false for a scope that is neither, such as AllNodes.
func ownerOf(s xds.Scope) (owner, bool) {
	p := strings.Split(string(s), "/")
	switch {
	case len(p) == 2 && p[0] == string(Node) && p[1] != "" && s != AllNodes:
		return owner{Node, types.NamespacedName{Name: p[1]}}, true
	case len(p) == 3 && p[0] == string(Waypoint) && p[1] != "" && p[2] != "":
		return owner{Waypoint, types.NamespacedName{Namespace: p[1], Name: p[2]}}, true
	}
	return owner{}, false
}

// NodeOf is the node of a node proxy's scope.
func NodeOf(s xds.Scope) (string, bool) {
	o, ok := ownerOf(s)
	return o.name.Name, ok && o.kind == Node
}

// WaypointOf is the Gateway of a waypoint's scope.
func WaypointOf(s xds.Scope) (gateway types.NamespacedName, ok bool) {
	o, ok := ownerOf(s)
	return o.name, ok && o.kind == Waypoint
}
