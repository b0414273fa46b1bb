// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package names

import "time"

// Names and numbers of traffic capture in network namespaces.
const (
	// NftTable is the one nftables table (family inet) that Fairway has in a namespace.
	NftTable = "fairway"
	// MarkAnswered is the mark of a connection (not of its packets) that the proxy opened with the client's address as
	// source.
	MarkAnswered = 0x539
	// MarkReply routes an application's answers to such a connection back to the proxy: policy rule RulePriority sends
	// them to RouteTable, which delivers locally.
	MarkReply    = 0x53a
	RouteTable   = 0x539
	RulePriority = 0x539
	// DialledTime is within what time the addresses are counted that a pod dials; each counts from when it was dialled
	// last.
	DialledTime = time.Hour
	// ApplicationAddress and ApplicationAddress6 are what the proxy dials, from inside a pod's namespace, to hand captured
	// plaintext to the pod's application: capture translates them to the pod's own address. With the pod's address
	// itself, the kernel would now and then take the new connection for the captured one, which has the same client
	// address and may have the same port.
	ApplicationAddress  = "127.77.0.1"
	ApplicationAddress6 = "::1"
	// ProbeSourceAddress6 is ProbeSourceAddress for IPv6.
	ProbeSourceAddress6 = "fd16:9254:7127:1::1"
)
