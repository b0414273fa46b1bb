// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"time"

	"github.com/fairway-mesh/fairway/internal/introspect"
)

// report is what `fairway status` shows and prints as JSON.
type report struct {
	Healthy bool         `json:"healthy"`
	Mesh    meshReport   `json:"mesh"`
	Nodes   []nodeReport `json:"nodes"`
	// Waypoints of all namespaces.
	Waypoints []waypointReport `json:"waypoints"`
	// WaypointsUnknown: they could not be asked for.
	WaypointsUnknown bool `json:"waypointsUnknown,omitempty"`
	// Elsewhere is what the conditions of routes and Services complain of that no waypoint serves.
	Elsewhere []string `json:"elsewhere,omitempty"`
	// Policies is what the conditions of policies and HTTPExtensions complain of.
	Policies []string      `json:"policies,omitempty"`
	Proxies  []proxyReport `json:"proxies"`
	// Plaintext is missing if no operator could be asked.
	Plaintext *plaintextReport `json:"plaintext,omitempty"`
	// Problems are what is wrong, a sentence each.
	Problems []string `json:"problems,omitempty"`
	// Unknown is what could not be found out, a sentence each.
	Unknown []string `json:"unknown,omitempty"`
}

type meshReport struct {
	Found bool `json:"found"`
	// Unknown: it could not be asked for, so that Found says nothing.
	Unknown     bool        `json:"unknown,omitempty"`
	TrustDomain string      `json:"trustDomain,omitempty"`
	MTLS        string      `json:"mtls,omitempty"`
	Outbound    string      `json:"outbound,omitempty"`
	Operators   []string    `json:"operators,omitempty"`
	Conditions  []condition `json:"conditions,omitempty"`
}

type condition struct {
	Type    string `json:"type"`
	Status  string `json:"status"`
	Reason  string `json:"reason,omitempty"`
	Message string `json:"message,omitempty"`
}

type nodeReport struct {
	Name string `json:"name"`
	// Proxy is the node pod; empty if there is none.
	Proxy string `json:"proxy,omitempty"`
	Ready bool   `json:"ready"`
	// Wanted tells whether the node should have a proxy.
	Wanted   bool `json:"wanted"`
	Captured int  `json:"captured"`
	// Strict are those of the captured pods that refuse plain text, SomePorts those that do at some of their ports, and
	// Closed those that reach addresses of the mesh only.
	Strict    int `json:"strict,omitempty"`
	SomePorts int `json:"strictAtSomePorts,omitempty"`
	Closed    int `json:"closed,omitempty"`
	// Uncaptured pods should be captured and are not.
	Uncaptured []uncaptured `json:"uncaptured,omitempty"`
}

type uncaptured struct {
	Pod    string `json:"pod"`
	Reason string `json:"reason"`
}

type waypointReport struct {
	Namespace string `json:"namespace"`
	Name      string `json:"name"`
	// Automatic waypoints were made by the operator, because a route asked for one.
	Automatic  bool        `json:"automatic"`
	Programmed bool        `json:"programmed"`
	Conditions []condition `json:"conditions,omitempty"`
	Ready      int32       `json:"ready"`
	Replicas   int32       `json:"replicas"`
	// Routes that are attached to its Services, and those of them whose conditions complain.
	Routes int      `json:"routes"`
	Broken []string `json:"broken,omitempty"`
}

// States of a proxy.
const (
	stateInSync       = "in sync"
	statePending      = "pending"
	stateRejected     = "rejected"
	stateDisconnected = "not connected"
	// stateUnknown: some operator replica could not be asked, and the proxy may be connected to that one.
	stateUnknown = "unknown"
)

type proxyReport struct {
	Pod   string `json:"pod"`
	Scope string `json:"scope,omitempty"`
	Node  string `json:"node,omitempty"`
	State string `json:"state"`
	// Reason why it is not connected.
	Reason string `json:"reason,omitempty"`
	// Operator is the replica that the proxy is connected to.
	Operator  string            `json:"operator,omitempty"`
	Connected *time.Time        `json:"connected,omitempty"`
	Types     []introspect.Type `json:"types,omitempty"`
	// unlisted: there was no such pod when pods were listed.
	unlisted bool
}

func (p proxyReport) counts() (acked, pending, rejected int) {
	return introspect.Proxy{Types: p.Types}.Counts()
}
