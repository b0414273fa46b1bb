// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"fmt"
	"math"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A node's agent reads what the operator says of a dialled address, to know which of them lead to pods of its node.

// Takers are the applications that connections to an address are spread over; none if any of them isn't reached by mTLS
// as itself.
type Takers []netip.AddrPort

// Dialled is what a cluster of a dialled address says of it.
type Dialled struct {
	// Endpoints names the load assignment; "": Static are all.
	Endpoints string
	Static    Takers
	// Sticky: the caller decides which endpoint it is.
	Sticky bool
	// identities and prefixes of them may answer.
	identities, prefixes []string
}

// MayAnswer tells whether a caller takes an identity for the one that it dialled.
func (d Dialled) MayAnswer(identity string) bool {
	return slices.Contains(d.identities, identity) ||
		slices.ContainsFunc(d.prefixes, func(p string) bool { return strings.HasPrefix(identity, p) })
}

// ReadDialled reads a packed cluster of Destination. It is the zero value where callers don't all go to pods as these
// themselves, but to waypoints, or outside of the mesh.
func ReadDialled(packed *anypb.Any) (Dialled, error) {
	c := &clusterv3.Cluster{}
	if err := packed.UnmarshalTo(c); err != nil {
		return Dialled{}, fmt.Errorf("cluster: %w", err)
	}
	sans, ok := envoy.AnsweringAsThemselves(c.GetTransportSocket())
	if _, _, _, _, chooses := names.ParseCallerEndpoints(c.GetEdsClusterConfig().GetServiceName()); !ok || chooses {
		return Dialled{}, nil
	}
	d := Dialled{Endpoints: c.GetEdsClusterConfig().GetServiceName(), Sticky: c.GetLoadBalancingPolicy() != nil}
	if d.Endpoints == "" {
		d.Static = takers(c.GetLoadAssignment())
	}
	for _, m := range sans {
		if exact := m.GetMatcher().GetExact(); exact != "" {
			d.identities = append(d.identities, exact)
		} else if prefix := m.GetMatcher().GetPrefix(); prefix != "" {
			d.prefixes = append(d.prefixes, prefix)
		}
	}
	return d, nil
}

// ReadTakers reads a packed load assignment of NodeEndpoints.
func ReadTakers(packed *anypb.Any) (Takers, error) {
	a := &endpointv3.ClusterLoadAssignment{}
	if err := packed.UnmarshalTo(a); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	return takers(a), nil
}

// takers are the endpoints of the first priority: the others have nothing as long as there is one of these.
func takers(a *endpointv3.ClusterLoadAssignment) (out Takers) {
	first := uint32(math.MaxUint32)
	for _, l := range a.GetEndpoints() {
		first = min(first, l.GetPriority())
	}
	for _, l := range a.GetEndpoints() {
		if l.GetPriority() != first {
			continue
		}
		for _, e := range l.GetLbEndpoints() {
			at, ok := asItself(e)
			if !ok {
				return nil
			}
			out = append(out, at)
		}
	}
	return out
}

// asItself is the application of an endpoint that takes mTLS.
func asItself(e *endpointv3.LbEndpoint) (netip.AddrPort, bool) {
	socket := e.GetEndpoint().GetAddress().GetSocketAddress()
	addr, err := netip.ParseAddr(socket.GetAddress())
	port, noPort := strconv.ParseUint(e.GetEndpoint().GetHostname(), 10, 16)
	_, otherWay := e.GetMetadata().GetFilterMetadata()[envoy.MetadataSocketMatch]
	ok := err == nil && noPort == nil && !otherWay && socket.GetPortValue() == names.PortMTLS &&
		e.GetHealthStatus() == corev3.HealthStatus_UNKNOWN
	return netip.AddrPortFrom(addr.Unmap(), uint16(port)), ok
}
