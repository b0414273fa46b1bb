// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// portTimeout bounds TCP and TLS to one endpoint: two lost packets are made good, and an endpoint that vanished
	// without a trace does not hold a request for long before another is tried.
	portTimeout = 4 * time.Second
	// ceiling of connections, requests and waiting requests per cluster and worker-shared: far above what a waypoint
	// serves, and low enough that a backend that hangs can't exhaust the memory.
	ceiling = 65536
)

// ServicePort is a service port as a destination of requests: its endpoints by EDS, each inside or outside the mesh.
// Requests leave in the protocol in which they came (a port declared HTTP may well be spoken to in h2c), unless the
// port is declared HTTP/2. The limits are of the waypoint that sends, and so is the identity as which it connects.
func ServicePort(u model.Upstream, identity string, headers model.HeaderLimits) *clusterv3.Cluster {
	out := portCluster(names.ServicePort(u.Namespace, u.Service, u.Port), u)
	reachPort(out, u.Identities, identity)
	out.TypedExtensionProtocolOptions = protocolOptions(u, headers)
	return out
}

// Inbound is a service port as the destination of connections that are passed on as they are; and of requests, on
// connections from when the port was HTTP. A connection leaves from the network namespace in its filter state, if there
// is any: the verdict on its caller is there.
func Inbound(u model.Upstream, identity string, headers model.HeaderLimits) *clusterv3.Cluster {
	out := portCluster(names.InboundCluster(u.Namespace, u.Service, u.Port), u)
	reachPort(out, u.Identities, identity)
	out.TypedExtensionProtocolOptions = protocolOptions(u, headers)
	out.AltStatName = statName(out.GetName())
	out.UpstreamBindConfig = bindInNetns(envoy.BoundUnsent())
	out.PerConnectionBufferLimitBytes = envoy.UInt32(envoy.HeldBytes)
	return out
}

func portCluster(name string, u model.Upstream) *clusterv3.Cluster {
	out := cluster(name, cmp.Or(u.Kept.ConnectTimeout, portTimeout))
	k := u.Kept.Keepalive
	out.UpstreamConnectionOptions = envoy.NoticeDeadServersWithin(k.Time, k.Interval, k.Probes)
	out.CircuitBreakers, out.OutlierDetection = limits(u.Limits, u.Retries), outliers(u.Outliers)
	out.UpstreamBindConfig = &corev3.BindConfig{SocketOptions: envoy.BoundUnsent()}
	byEDS(out, names.WaypointEndpoints(u.Namespace, u.Service, u.Port))
	balance(out, u)
	return out
}

// mostTold is how many identities that may answer for a Service's port are told apart, endpoint by endpoint: each costs
// a proxy 15 KB, for each port.
const mostTold = 4

// reachPort lets an endpoint be reached as it says (portEndpoint): in plain, or by mTLS as the one identity that may
// answer there. Where identities are too many, whoever may answer at one endpoint may at another, too.
func reachPort(c *clusterv3.Cluster, identities []string, own string) {
	var others []string
	if len(identities) > mostTold {
		identities, others = nil, identities
	}
	reachedInPlainOr(c, envoy.MTLSClient(own, names.TrustBundleSecret, envoy.MayAnswer(others)))
	for _, id := range identities {
		c.TransportSocketMatches = append(c.TransportSocketMatches,
			envoy.OnWay("mtls", id, envoy.MTLSClient(own, names.TrustBundleSecret, envoy.SPIFFEIDs(id))))
	}
}

// WaypointEndpoints are the endpoints of a service port as waypoints reach them. Those that drain get traffic only when
// no other is left, and those that nobody may answer at are none. Whom they are near to is for Nearest to read.
func WaypointEndpoints(p model.ServicePort, endpoints []model.Endpoint) *endpointv3.ClusterLoadAssignment {
	list := portCandidates(endpoints, reachedAt)
	return assign(names.WaypointEndpoints(p.Namespace, p.Service, p.Port), list, portEndpoint)
}

// portCandidates are endpoints as waypoints take them, told apart by where each is.
func portCandidates(endpoints []model.Endpoint, at func(model.Endpoint) netip.AddrPort) (list []candidate) {
	for _, e := range endpoints {
		c := candidate{Endpoint: e, at: at(e), subZone: way(e)}
		if e.Draining {
			c.rank = 1
		}
		if c.at.IsValid() && answering(e) {
			list = append(list, c)
		}
	}
	return list
}

// answering tells whether anybody may answer at an endpoint.
func answering(e model.Endpoint) bool { return !e.MTLS || e.Identity != "" }

// Answering are the endpoints at which anybody may.
func Answering(endpoints []model.Endpoint) (out []model.Endpoint) {
	for _, e := range endpoints {
		if answering(e) {
			out = append(out, e)
		}
	}
	return out
}

// way tells apart who may answer. Envoy takes an endpoint that changes its locality for another one, and drops the
// connections that were good for the one before, which it would not do for another identity alone.
func way(e model.Endpoint) string {
	if !e.MTLS {
		return envoy.WayPlaintext
	}
	sum := sha256.Sum256([]byte(e.Identity))
	return hex.EncodeToString(sum[:8])
}

// portEndpoint is reached in plain, or by mTLS as the SPIFFE ID that may answer there.
func portEndpoint(c candidate) *endpointv3.LbEndpoint {
	reached, told := envoy.WayPlaintext, map[string]string{names.MetadataTarget: c.Address.String()}
	if c.MTLS {
		reached, told[names.MetadataIdentity] = c.Identity, c.Identity
	}
	metadata := envoy.Metadata(map[string]map[string]string{
		envoy.MetadataSocketMatch: envoy.ReachedBy(reached),
		names.MetadataEndpoint:    told,
	})
	if near := nearTo(c.Endpoint); near != nil {
		metadata.FilterMetadata[names.MetadataNear] = near
	}
	return lbEndpoint(c, metadata)
}
