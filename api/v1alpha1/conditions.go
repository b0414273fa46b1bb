// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

// Condition types of the Mesh, and of the mesh's Gateways and GatewayClass, by which tools that know none of these
// kinds tell whether to wait. They are there only while they are True.
const (
	// ConditionReconciling: not all is as it should be, and it will be by itself.
	ConditionReconciling = "Reconciling"
	// ConditionStalled: not all is as it should be, and somebody has to do something.
	ConditionStalled = "Stalled"
)

// Condition types of a Mesh.
const (
	// MeshConditionReady sums the other conditions up.
	MeshConditionReady = "Ready"
	// MeshConditionAccepted says that the spec makes sense and is carried out.
	MeshConditionAccepted = "Accepted"
	// MeshConditionNetworkReady says that the ranges to capture are known.
	MeshConditionNetworkReady = "NetworkReady"
	// MeshConditionCertificatesReady says that the operator has a CA to sign with, or that SPIRE gives it its identity.
	MeshConditionCertificatesReady = "CertificatesReady"
	// MeshConditionCertificatesRenewed says that what was issued is renewed in time. While all of it is still valid, Ready
	// doesn't depend on it.
	MeshConditionCertificatesRenewed = "CertificatesRenewed"
	// MeshConditionNodesReady says that the node proxy runs on every node that should have one.
	MeshConditionNodesReady = "NodesReady"
	// MeshConditionAddressesReady says that no pod claims an address that is not its own.
	MeshConditionAddressesReady = "AddressesReady"
	// MeshConditionGatewayAPIReady says that the CRDs of the Gateway API are installed.
	MeshConditionGatewayAPIReady = "GatewayAPIReady"
)

// Reasons of Mesh conditions.
const (
	// MeshReasonReady: the mesh is up.
	MeshReasonReady = "Ready"
	// MeshReasonAccepted: the spec is valid.
	MeshReasonAccepted = "Accepted"
	// MeshReasonInvalid: the spec can't be carried out; the message says why.
	MeshReasonInvalid = "Invalid"
	// MeshReasonPending: the operator has not got there yet.
	MeshReasonPending = "Pending"
	// MeshReasonNodesUnreachable, of an Event of the node DaemonSet: the Mesh was deleted while some nodes could not
	// let their pods go.
	MeshReasonNodesUnreachable = "NodesUnreachable"
	// MeshReasonFound: the ranges were found in the cluster.
	MeshReasonFound = "Found"
	// MeshReasonConfigured: the ranges are those of spec.network.
	MeshReasonConfigured = "Configured"
	// MeshReasonNoPodCIDRs: no Node reports spec.podCIDRs, and spec.network.podCIDRs is empty.
	MeshReasonNoPodCIDRs = "NoPodCIDRs"
	// MeshReasonNoServiceCIDRs: the cluster has no ServiceCIDR objects, and spec.network.serviceCIDRs is empty.
	MeshReasonNoServiceCIDRs = "NoServiceCIDRs"
	// MeshReasonIssued: the CA is there.
	MeshReasonIssued = "Issued"
	// MeshReasonIssuerNotReady: cert-manager has not issued the CA; the message says what is missing.
	MeshReasonIssuerNotReady = "IssuerNotReady"
	// MeshReasonCertManagerMissing: spec.certificates.certManager is set, but the cluster has no cert-manager.
	MeshReasonCertManagerMissing = "CertManagerMissing"
	// MeshReasonCAInvalid: the CA that was issued can't be used (not a CA, expired, key does not fit).
	MeshReasonCAInvalid = "CAInvalid"
	// MeshReasonTrustBundleInvalid: the ConfigMap of spec.certificates.certManager.trustBundleRef is missing, or holds no
	// roots that can be used.
	MeshReasonTrustBundleInvalid = "TrustBundleInvalid"
	// MeshReasonIssuerDenied: an approver of cert-manager denies the mesh's requests.
	MeshReasonIssuerDenied = "IssuerDenied"
	// MeshReasonIssuerFailed: the issuer refuses the mesh's requests, or fails to sign.
	MeshReasonIssuerFailed = "IssuerFailed"
	// MeshReasonIssuerUnavailable: nobody answers the mesh's requests.
	MeshReasonIssuerUnavailable = "IssuerUnavailable"
	// MeshReasonCertificateRefused: what the issuer signs is not what it was asked for, and is not used.
	MeshReasonCertificateRefused = "CertificateRefused"
	// MeshReasonSPIRENotReady: SPIRE gives an identity not, or not the right one, or doesn't renew it.
	MeshReasonSPIRENotReady = "SPIRENotReady"
	// MeshReasonRenewed: nothing fails to be renewed.
	MeshReasonRenewed = "Renewed"
	// MeshReasonRenewalFailing: certificates are not renewed, for no reason of the issuer's; the message says why.
	MeshReasonRenewalFailing = "RenewalFailing"
	// MeshReasonNodesNotReady: some nodes have no ready proxy; the message names them.
	MeshReasonNodesNotReady = "NodesNotReady"
	// MeshReasonNoNodes: no node is to have a proxy.
	MeshReasonNoNodes = "NoNodes"
	// MeshReasonUnambiguous: every address that the mesh cares about is claimed by one node.
	MeshReasonUnambiguous = "Unambiguous"
	// MeshReasonAddressConflict: a node reports an address for a pod that another has, or that is outside of its ranges.
	MeshReasonAddressConflict = "AddressConflict"
	// MeshReasonInstalled: the Gateway API is there.
	MeshReasonInstalled = "Installed"
	// MeshReasonGatewayAPIMissing: the cluster does not serve the Gateway API.
	MeshReasonGatewayAPIMissing = "GatewayAPIMissing"
	// MeshReasonCaptureFailed: a node proxy runs, but pods on its node could not be captured.
	MeshReasonCaptureFailed = "CaptureFailed"
	// MeshReasonPluginMissing: a node proxy runs, but the CNI plugin can't be installed on its node, so that pods start
	// uncaptured there; the message says why.
	MeshReasonPluginMissing = "PluginMissing"
)
