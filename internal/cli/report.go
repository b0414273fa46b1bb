// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"time"

	"github.com/fairway-mesh/fairway/internal/introspect"
)

// report is what `fairway status` shows and prints as JSON. What could not be asked for is missing or null, and its kind
// is in Unread: it is never none or zero.
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
	// RoutesOfOthers are how many routes of enrolled namespaces have no parent that is the mesh's.
	RoutesOfOthers int `json:"routesOfOthers,omitempty"`
	// Policies is what the conditions of policies and HTTPExtensions complain of.
	Policies []string      `json:"policies,omitempty"`
	Proxies  []proxyReport `json:"proxies"`
	// Plaintext is missing if no operator could be asked.
	Plaintext *plaintextReport `json:"plaintext,omitempty"`
	findings
}

type meshReport struct {
	Found bool `json:"found"`
	// Unknown: it could not be asked for, so that Found says nothing.
	Unknown     bool   `json:"unknown,omitempty"`
	TrustDomain string `json:"trustDomain,omitempty"`
	MTLS        string `json:"mtls,omitempty"`
	Outbound    string `json:"outbound,omitempty"`
	// Operators are the replicas that run, of which OperatorsReady are ready; missing where pods could not be asked for.
	Operators      []string `json:"operators,omitempty"`
	OperatorsReady *int     `json:"operatorsReady,omitempty"`

	Conditions []condition `json:"conditions,omitempty"`
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
	// Ready and Captured are missing where pods could not be asked for.
	Ready *bool `json:"ready,omitempty"`
	// Wanted tells whether the node should have a proxy; missing where the Mesh could not be asked for.
	Wanted   *bool `json:"wanted,omitempty"`
	Captured *int  `json:"captured,omitempty"`
	// Strict are those of the captured pods that refuse plain text, SomePorts those that do at some of their ports, and
	// Closed those that reach addresses of the mesh only.
	Strict    int `json:"strict,omitempty"`
	SomePorts int `json:"strictAtSomePorts,omitempty"`
	Closed    int `json:"closed,omitempty"`
	// Uncaptured pods should be captured and are not.
	Uncaptured []uncaptured `json:"uncaptured,omitempty"`
	// why it has no proxy, or none that is ready, and the pods that have not started there.
	why     string
	waiting []string
}

func (n nodeReport) wanted() bool { return n.Wanted != nil && *n.Wanted }
func (n nodeReport) ready() bool  { return n.Ready != nil && *n.Ready }

// working tells whether there is a proxy that could capture pods.
func (n nodeReport) working() bool { return n.Proxy != "" && n.ready() }

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
	// Ready and Replicas are missing where Deployments could not be asked for.
	Ready    *int32 `json:"ready,omitempty"`
	Replicas *int32 `json:"replicas,omitempty"`
	// Routes that are attached to its Services, and those of them whose conditions complain; missing where routes could
	// not be asked for.
	Routes *int     `json:"routes,omitempty"`
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
	// unlisted: there was no such pod when pods were listed. unready: its pod isn't. dumb: its agent doesn't answer.
	unlisted, unready, dumb bool
}

func (p proxyReport) counts() (acked, pending, rejected int) {
	return introspect.Proxy{Types: p.Types}.Counts()
}
