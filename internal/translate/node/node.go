// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package node makes what a node's agent gives the proxy beside it: the listeners of the captured pods of its node
// (Listeners), what every node proxy has from the start (StaticClusters), and the mark of its node in what comes from
// the operator (Marked), which is package upstream's: the cluster of a dialled address and its endpoints.
//
// One connection passes like this. The sending pod's listener "outbound" hands it to the cluster named by the dialled
// address, which connects from the pod's own network namespace and address. Endpoints that take mTLS get it with the
// pod's own certificate, one connection for one connection, and are asked for their port by the server name (SNI). All
// others get it in plain. The receiving pod's listener "mtls" connects to the application's port, with the caller's
// address as source.
//
// All functions are pure.
package node

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// StaticClusters are the clusters that a node proxy has from the start, with the mark of its node. It makes no more
// connections to applications than most, so that it never runs out of descriptors.
func StaticClusters(most uint64, mark proxymark.Mark) []*clusterv3.Cluster {
	return []*clusterv3.Cluster{upstream.Direct(most, socketOptions(mark))}
}
