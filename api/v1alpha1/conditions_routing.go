// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// What Fairway adds to the Gateway API's own conditions of Gateways.
const (
	// GatewayConditionEstablished is a condition of a waypoint's Gateway that turns True when its proxies have served
	// for the first time and never turns back: from then on the waypoint's absence closes its Services, never opens
	// them. A new Gateway of the name starts anew; what was closed stays so by ServiceConditionWaypointBound.
	GatewayConditionEstablished = "fairway.dev/Established"

	// GatewayReasonServed, of GatewayConditionEstablished: the waypoint has served.
	GatewayReasonServed = "Served"
	// GatewayReasonProxiesPending: not every ready proxy has acknowledged the configuration yet.
	GatewayReasonProxiesPending = "ProxiesPending"
	// GatewayReasonProxyRejected: a proxy rejected the configuration; the message carries its words.
	GatewayReasonProxyRejected = "ProxyRejected"
	// GatewayReasonNotEnrolled: the Gateway's namespace is not in the mesh, so that its waypoint gets no identity.
	GatewayReasonNotEnrolled = "NotEnrolled"
	// GatewayReasonNoMesh: there is no Mesh, so nothing can be programmed.
	GatewayReasonNoMesh = "NoMesh"
)

// What Fairway adds to the Gateway API's own conditions of every kind of entry that it lists by controller: parents of
// routes, ancestors of policies.
const (
	// EntryConditionProgrammed is the condition of a route or a policy whose configuration every ready proxy has
	// acknowledged.
	EntryConditionProgrammed = "Programmed"

	// EntryReasonProgrammed: every ready proxy that must serve the route or the policy has acknowledged it.
	EntryReasonProgrammed = "Programmed"
	// EntryReasonPending: some ready proxy has not answered yet, or callers are not sent to the waypoint yet.
	EntryReasonPending = "Pending"
	// EntryReasonNoProxies: no proxy of the waypoint is ready.
	EntryReasonNoProxies = "NoProxies"
	// EntryReasonWaypointStalled: no proxy of the waypoint is ready, and none will be by itself: the conditions of its
	// Gateway say why.
	EntryReasonWaypointStalled = "WaypointStalled"
	// EntryReasonProxyRejected: a proxy refuses what comes of the object; it goes on with the last good configuration.
	EntryReasonProxyRejected = "ProxyRejected"
	// EntryReasonNotEnrolled: the namespace of the Service that the entry is about is not in the mesh.
	EntryReasonNotEnrolled = "NamespaceNotEnrolled"
	// EntryReasonNoWaypoint: no waypoint serves the Service that the entry is about.
	EntryReasonNoWaypoint = "NoWaypoint"

	// EntryConditionStatusFull is True where the status has no room for all of the mesh's entries.
	EntryConditionStatusFull = "fairway.dev/StatusFull"

	// EntryReasonTooMany, of EntryConditionStatusFull: some entries are left out; the message says how many.
	EntryReasonTooMany = "TooManyEntries"
)

// What it adds to those of routes alone.
const (
	// RouteReasonConflicted: another kind of route has the port (GEP-1294, "Route types").
	RouteReasonConflicted = "Conflicted"
	// RouteReasonOverBudget: the routes of one namespace would cost the operator, or the waypoints of another, too
	// much.
	RouteReasonOverBudget = "OverBudget"
	// RouteReasonExtensionNotFound, of ResolvedRefs: a filter names an HTTPExtension that is not there.
	RouteReasonExtensionNotFound = "ExtensionNotFound"
	// RouteReasonInvalidExtension, of ResolvedRefs: the HTTPExtension that a filter names can't be carried out.
	RouteReasonInvalidExtension = "InvalidExtension"
)

// What it adds to those of HTTPExtensions alone.
const (
	// ExtensionReasonNotUsed, of Programmed: no rule of a route that is attached to a Service names it.
	ExtensionReasonNotUsed = "NotUsed"
)

// What it adds to those of XBackends alone.
const (
	// XBackendReasonInvalidHostname, of Accepted, and of ResolvedRefs of routes that lead there: the name can't be one of
	// a host outside the cluster.
	XBackendReasonInvalidHostname = "InvalidHostname"
	// XBackendReasonNotUsed, of Programmed: routes name it, and none of them has a rule by which requests leave.
	XBackendReasonNotUsed = "NotUsed"
)

// What it adds to those of policies alone. AuthorizationPolicies have Enforced in the place of Programmed.
const (
	// PolicyReasonOverridden, of Programmed: each part of the target has a policy that names it, or there is no part.
	PolicyReasonOverridden = "Overridden"

	// PolicyConditionEnforced is the condition of an AuthorizationPolicy that nobody gets past: every proxy concerned has
	// acknowledged what comes of this generation. Where it is not accepted, the reason is that of Accepted.
	PolicyConditionEnforced = "Enforced"

	// PolicyReasonEnforced: every proxy concerned carries the policy out.
	PolicyReasonEnforced = "Enforced"
	// PolicyReasonPending: some proxy may still decide by what was before.
	PolicyReasonPending = "Pending"
	// PolicyReasonProxyRejected: a proxy refuses what comes of the policy; it goes on with the last good configuration.
	PolicyReasonProxyRejected = "ProxyRejected"
	// PolicyReasonPodsNotCaptured: pods that the policy is for aren't captured, so that nothing guards them.
	PolicyReasonPodsNotCaptured = "PodsNotCaptured"
	// PolicyReasonNoWaypoint: requests are to be decided, and no waypoint does; pods are closed at the ports concerned.
	PolicyReasonNoWaypoint = "NoWaypoint"
	// PolicyReasonNotRequests: a port that carries no HTTP can't be decided on by requests; pods are closed there. Of
	// Programmed: the policy is about requests, and no port that it is in force for has any.
	PolicyReasonNotRequests = "NotRequests"
	// PolicyReasonOverBudget, of Accepted: older policies of the namespace leave no room for what the policy costs
	// proxies. It lets in nobody where it was to decide. Of Enforced, of an AuthenticationPolicy: a waypoint of another
	// namespace has no room for it, and refuses what needs it. A TrafficPolicy that is too much is as if it said nothing.
	PolicyReasonOverBudget = "OverBudget"
	// PolicyReasonKeysMissing, of Enforced of an AuthenticationPolicy: a server of keys (jwks.remote) has never given any
	// to some proxy, so no token of its issuer is good there.
	PolicyReasonKeysMissing = "KeysMissing"
	// PolicyReasonDryRun: every proxy concerned tries the policy, and refuses nothing because of it.
	PolicyReasonDryRun = "DryRun"
)

// The one condition that the mesh has for Services.
const (
	// ServiceConditionWaypointBound is the condition of a Service that says which waypoint serves it, or why none can.
	ServiceConditionWaypointBound = "fairway.dev/WaypointBound"

	// ServiceReasonWaypointAccepted: connections to the Service go through the waypoint.
	ServiceReasonWaypointAccepted = "WaypointAccepted"
	// ServiceReasonWaypointPending: the waypoint is being created; connections go straight to the Service meanwhile.
	ServiceReasonWaypointPending = "WaypointPending"
	// ServiceReasonWaypointMissing: the Service names a waypoint that is not there; connections are refused.
	ServiceReasonWaypointMissing = "WaypointMissing"
	// ServiceReasonOverBudget: older Services of the namespace have so many ports that the waypoint can't serve this one;
	// connections are refused.
	ServiceReasonOverBudget = "OverBudget"
	// ServiceReasonNotSupported: the Service names a waypoint, but no waypoint can serve a Service like it.
	ServiceReasonNotSupported = "NotSupported"
	// ServiceReasonEndpointsLeftOut, of an Event: proxies know only some of the Service's endpoints, for there are too
	// many (for all, or for a waypoint of another namespace), or waypoints would get past the guards of pods there.
	ServiceReasonEndpointsLeftOut = "EndpointsLeftOut"
)
