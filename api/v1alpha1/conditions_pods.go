// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types of pods.
const (
	// PodConditionCaptured is the condition in which a node's agent says that the pod's traffic is captured; senders
	// speak mTLS to the pod from then on.
	PodConditionCaptured = "fairway.dev/Captured"
	// PodConditionServing is the condition of a node proxy's pod without which that pod is not ready: whether the proxy
	// takes the connections of all pods of its node that are captured.
	PodConditionServing = "fairway.dev/Serving"
	// PodConditionPluginInstalled is the condition of a node proxy's pod that says whether the CNI plugin is in place
	// on its node: without it, pods start uncaptured.
	PodConditionPluginInstalled = "fairway.dev/PluginInstalled"
)

// Reasons of PodConditionCaptured.
const (
	// PodReasonCaptured: the pod is captured.
	PodReasonCaptured = "Captured"
	// PodReasonCaptureFailed: the pod should be captured and is not; the message says why.
	PodReasonCaptureFailed = "CaptureFailed"
	// PodReasonMeshAbsent: there is no Mesh, or it is being deleted.
	PodReasonMeshAbsent = "MeshAbsent"
	// PodReasonSystemNamespace: the pod runs the mesh itself.
	PodReasonSystemNamespace = "SystemNamespace"
	// PodReasonNotEnrolled: the pod's namespace is not in the mesh.
	PodReasonNotEnrolled = "NotEnrolled"
	// PodReasonOptedOut: the pod's label takes it out of the mesh.
	PodReasonOptedOut = "OptedOut"
	// PodReasonProxy: the pod is a waypoint's, which speaks mTLS itself.
	PodReasonProxy = "Proxy"
	// PodReasonNoServiceAccount: the pod has no service account, so no identity.
	PodReasonNoServiceAccount = "NoServiceAccount"
	// PodReasonHostNetwork: the pod shares the node's network.
	PodReasonHostNetwork = "HostNetwork"
	// PodReasonFinished: the pod has finished.
	PodReasonFinished = "Finished"
	// PodReasonTerminating: the pod ends, and stays as it is until then.
	PodReasonTerminating = "Terminating"
	// PodReasonNetworkUnknown: the ranges to capture are not all known yet.
	PodReasonNetworkUnknown = "NetworkUnknown"
	// PodReasonNamespaceUnknown: the agent doesn't know the pod's namespace yet.
	PodReasonNamespaceUnknown = "NamespaceUnknown"
	// PodReasonAwaitingSandbox: the pod has no network yet.
	PodReasonAwaitingSandbox = "AwaitingSandbox"
	// PodReasonReservedPort: a container declares a port of the node proxy's own.
	PodReasonReservedPort = "ReservedPort"
	// PodReasonUninstalled: the mesh went from the pod's node.
	PodReasonUninstalled = "Uninstalled"
)

// Reasons of PodConditionServing.
const (
	// PodReasonServing: the proxy takes the connections of all captured pods.
	PodReasonServing = "Serving"
	// PodReasonNotServing: it doesn't yet; the message says what is missing.
	PodReasonNotServing = "NotServing"
)

// Reasons of PodConditionPluginInstalled.
const (
	// PodReasonInstalled: the CNI plugin is in place.
	PodReasonInstalled = "Installed"
	// PodReasonInstallFailed: the CNI plugin can't be installed; the message says why.
	PodReasonInstallFailed = "InstallFailed"
)

// Reasons of Events of pods.
const (
	// PodReasonUnknownLabel: a label of the mesh has a value that means nothing.
	PodReasonUnknownLabel = "UnknownLabel"
	// PodReasonShareUsedUp: the pod dialled more addresses than one pod may, and connections were refused.
	PodReasonShareUsedUp = "AddressShareUsedUp"
	// PodReasonPeerRefused: a caller has more connections to the pod than one may.
	PodReasonPeerRefused = "PeerRefused"
	// PodReasonOutboundRefused: the pod is closed, and sent to addresses outside of the mesh, which was refused.
	PodReasonOutboundRefused = "OutboundRefused"
)
