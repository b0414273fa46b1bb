// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A Service that only routes of other namespaces ask a waypoint for has one cluster for all callers of the node, like
// any other. Its endpoints say by keyCaller for which namespace's callers they are; a pod's listener says of which
// namespace its connections are.

// keyCaller is the key, in the metadata that Envoy balances by, of the namespace of a caller; otherCallers is for all
// that nothing else is for.
const (
	keyCaller    = "caller"
	otherCallers = "*"
)

// byCaller leads callers of some namespaces to the waypoint, and all others where they go without one.
func byCaller(c *clusterv3.Cluster, d model.Destination) {
	c.EdsClusterConfig.ServiceName = names.CallerEndpoints(d.Port.Namespace, d.Port.Service, d.Port.Port, d.IPv6,
		d.Callers)
	c.LoadBalancingPolicy = envoy.Subsets(keyCaller, otherCallers, c.LoadBalancingPolicy)
	// Whose waypoint is absent is refused, not sent to the unhealthy endpoint that stands for it.
	c.CommonLbConfig = &clusterv3.Cluster_CommonLbConfig{HealthyPanicThreshold: &typev3.Percent{}}
	c.TransportSocketMatches = append(c.TransportSocketMatches,
		envoy.OnWay(wayWaypoint, wayWaypoint, envoy.MTLSClientOnDemand(names.TrustBundleSecret,
			names.ServerName(d.Port.Namespace, d.Port.Service, d.Port.Port), envoy.SPIFFEIDs(d.Waypoint))))
}

// OfCaller is what connections of a namespace's pods say of their caller.
func OfCaller(namespace string) *corev3.Metadata {
	return envoy.Metadata(map[string]map[string]string{envoy.MetadataBalance: {keyCaller: namespace}})
}

// forCallers is what an endpoint says of whom it is for.
func forCallers(e model.Endpoint) *structpb.Struct {
	if len(e.Callers) == 0 {
		return envoy.Struct(map[string]string{keyCaller: otherCallers})
	}
	list := &structpb.ListValue{}
	for _, ns := range e.Callers {
		list.Values = append(list.Values, structpb.NewStringValue(ns))
	}
	return &structpb.Struct{Fields: map[string]*structpb.Value{keyCaller: structpb.NewListValue(list)}}
}
