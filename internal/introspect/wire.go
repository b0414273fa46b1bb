// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package introspect

import (
	"time"

	"github.com/fairway-mesh/fairway/internal/catalogue"
	"github.com/fairway-mesh/fairway/internal/counts"
)

// Paths of the loopback interface.
const (
	// PathProxies of the operator answers Proxies.
	PathProxies = "/v1/proxies"
	// PathPlaintext of the operator answers Plaintext.
	PathPlaintext = "/v1/plaintext"
	// PathAgent of an agent answers Agent.
	PathAgent = "/v1/agent"
	// PathEnvoy, followed by a path of envoyPaths, is passed on to the agent's Envoy.
	PathEnvoy = "/v1/envoy/"
)

// Plaintext is who came to captured pods in plain text, as all proxies have told: every replica knows of all.
type Plaintext struct {
	// Since is from when on they are summed up: an hour ago, or when the replica began.
	Since time.Time `json:"since"`
	// Callers by workload, the most first.
	Callers []counts.Stranger `json:"callers"`
}

// Proxies are the proxies that are connected to one operator replica, ordered by scope and pod.
type Proxies struct {
	Proxies []Proxy `json:"proxies"`
}

// Proxy is one connected proxy.
type Proxy struct {
	// Scope is "waypoint/<namespace>/<gateway>" or "node/<name>".
	Scope string `json:"scope"`
	// Pod is "<namespace>/<name>".
	Pod       string    `json:"pod"`
	PodUID    string    `json:"podUID,omitempty"`
	Node      string    `json:"node,omitempty"`
	Address   string    `json:"address,omitempty"`
	Connected time.Time `json:"connected"`
	// Types are ordered by name.
	Types []Type `json:"types"`
}

// Counts sums up all types.
func (p Proxy) Counts() (acked, pending, rejected int) {
	for _, t := range p.Types {
		acked, pending, rejected = acked+t.Acked, pending+t.Pending, rejected+t.Rejected
	}
	return acked, pending, rejected
}

// Type is one resource type of one proxy.
type Type struct {
	// Name is the last part of the type URL, as "Cluster".
	Name string `json:"name"`
	// Resources that the proxy has or is to get: the sum of the three below.
	Resources int `json:"resources"`
	Acked     int `json:"acked"`
	// Pending resources were sent and are not answered yet, or were asked for and not sent yet.
	Pending  int `json:"pending"`
	Rejected int `json:"rejected"`
	// Rejections are at most maxRejections of them.
	Rejections []Rejection `json:"rejections,omitempty"`
}

// Rejection is a resource that the proxy refused, in its own words. It runs on with the version before.
type Rejection struct {
	Resource string `json:"resource"`
	Version  string `json:"version"`
	Error    string `json:"error"`
}

// Agent is what an agent says about itself.
type Agent struct {
	// Kind of the proxy.
	Kind    catalogue.Kind `json:"kind"`
	Version string         `json:"version,omitempty"`
	Node    string         `json:"node,omitempty"`
	// Operator is the stream to the operator.
	Operator Connection `json:"operator"`
	// Captures are the pods that a node's agent is responsible for; empty on a waypoint.
	Captures []Capture `json:"captures,omitempty"`
	// Neighbours are the pods of the node that are reached by one pass through its proxy, by the address that is dialled.
	Neighbours map[string][]string `json:"neighbours,omitempty"`
}

// Connection is the agent's stream to the operator.
type Connection struct {
	Connected bool `json:"connected"`
	// Since is when the present state began.
	Since time.Time `json:"since"`
	// Error is why the last attempt failed, if not connected.
	Error string `json:"error,omitempty"`
}

// Capture is one pod of the agent's node.
type Capture struct {
	Namespace string `json:"namespace"`
	Pod       string `json:"pod"`
	UID       string `json:"uid"`
	// State is the agent's word for where the pod stands, Reason why it is not captured.
	State  string    `json:"state"`
	Reason string    `json:"reason,omitempty"`
	Since  time.Time `json:"since"`
}
