// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package names

// Names and numbers of traffic capture in network namespaces.
const (
	// NftTable is the one nftables table (family inet) that Fairway has in a namespace.
	NftTable = "fairway"
	// MarkReply routes an application's answers to a connection that the proxy opened with the client's address as
	// source back to the proxy: policy rule RulePriority sends them to RouteTable, which delivers locally.
	MarkReply    = 0x53a
	RouteTable   = 0x539
	RulePriority = 0x539
	// ProbeSourceAddress6 is ProbeSourceAddress for IPv6.
	ProbeSourceAddress6 = "fd16:9254:7127:1::1"
)
