// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package e2e

// This is the table of who may come in: what docs/security.md promises, written down once more by hand. It asks nothing
// of the product's code, and nothing in it may be derived from there.

// Who asks.
const (
	sameNode      = "member, same node"
	otherNode     = "member, other node"
	otherAccount  = "other account"
	otherSpace    = "other namespace"
	outside       = "outside the mesh"
	hostSameNode  = "hostNetwork, same node"
	hostOtherNode = "hostNetwork, other node"
	byNodePort    = "outside the cluster, by NodePort"
	byBalancer    = "outside the cluster, by LoadBalancer"
	tunnel        = "tunnel with a valid certificate"
)

// What is dialled.
const (
	bySelf     = "Service"
	byPod      = "pod"
	byHeadless = "headless"
	byForeign  = "foreign Service"
	// byStray is a Service of the pod's namespace and with its waypoint; a slice lists the pod, but it doesn't choose it.
	byStray = "Service of other pods"
)

// What is in force.
const (
	noPolicy      = "none"
	networkAllow  = "network allow"
	networkDeny   = "network deny"
	requestAllow  = "L7 allow"
	requestDeny   = "L7 deny"
	tokenRequired = "jwt"
	serviceAsked  = "external authorization"
	defaultDeny   = "default deny"
	dryRun        = "dry run"
)

// What the waypoint of the Service does.
const (
	waypointNone     = "none"
	waypointReady    = "ready"
	waypointReplaced = "being replaced"
	waypointUnready  = "unready"
	waypointDeleted  = "deleted"
)

// Paths: the policies on requests allow or deny one of them, and so does the authorization service.
const (
	pathGood = "/ok"
	pathBad  = "/no"
)

// Tokens that requests carry: without one, and of whom it is.
const (
	noToken      = ""
	goodToken    = "of an issuer whose keys the policy has"
	fetchedToken = "of an issuer whose keys a pod serves"
	forgedToken  = "of somebody who says to be that issuer"
)

// cell is a question to the table.
type cell struct {
	caller, address, policy, waypoint, path, token string
	strict                                         bool
}

// asks are the questions to one address under a policy: each path, or, where tokens decide, each token.
func asks(policy string) []cell {
	if policy != tokenRequired {
		return []cell{{path: pathGood}, {path: pathBad}}
	}
	var out []cell
	for _, token := range []string{noToken, goodToken, fetchedToken, forgedToken} {
		out = append(out, cell{path: pathGood, token: token})
	}
	return out
}

// who a caller is to a policy: "friend" may come in, "stranger" may not, and "" has no identity.
func (c cell) who() string {
	switch c.caller {
	case sameNode, otherNode:
		return "friend"
	case otherAccount:
		return "stranger"
	case otherSpace, tunnel:
		return "visitor"
	}
	return ""
}

// asked tells whether the combination exists: a node's port leads to the Service, and a tunnel to a pod.
func (c cell) asked() bool {
	switch c.caller {
	case byNodePort, byBalancer:
		return c.address == bySelf
	case tunnel:
		return c.address == byPod
	}
	return true
}

// throughWaypoint tells whether the caller's own proxy sends it to the waypoint.
func (c cell) throughWaypoint() bool {
	member := c.caller == sameNode || c.caller == otherNode || c.caller == otherAccount || c.caller == otherSpace
	return member && (c.address == bySelf || c.address == byStray) && c.waypoint != waypointNone
}

// open is the verdict.
func (c cell) open() bool {
	if c.strict && c.who() == "" {
		return false
	}
	if c.throughWaypoint() && (c.waypoint == waypointUnready || c.waypoint == waypointDeleted) {
		return false
	}
	if c.throughWaypoint() && c.address == byStray {
		return c.policy == noPolicy || c.policy == dryRun // else the waypoint doesn't go there
	}
	switch c.policy {
	case noPolicy, dryRun:
		return true
	case networkAllow:
		return c.who() == "friend"
	case networkDeny:
		return c.who() != "stranger"
	case requestAllow:
		return c.throughWaypoint() && c.who() == "friend" && c.path == pathGood
	case requestDeny, serviceAsked:
		return c.throughWaypoint() && c.path != pathBad
	case tokenRequired:
		return c.throughWaypoint() && (c.token == goodToken || c.token == fetchedToken)
	}
	return false // default deny
}
