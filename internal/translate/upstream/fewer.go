// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

// callersCost is what an endpoint costs a proxy that is picked by its callers, in endpoints that aren't.
const callersCost = 3

// EndpointCost is what each endpoint of a load assignment costs a proxy, for each cluster that has it from there.
func EndpointCost(name string) int {
	if _, _, _, _, chooses := names.ParseCallerEndpoints(name); chooses {
		return callersCost
	}
	return 1
}

// CountEndpoints is how many endpoints a packed load assignment has, and of how many namespaces the callers are that
// some of them are for.
func CountEndpoints(packed *anypb.Any) (n, callers int, err error) {
	a := &endpointv3.ClusterLoadAssignment{}
	if err := packed.UnmarshalTo(a); err != nil {
		return 0, 0, fmt.Errorf("endpoints: %w", err)
	}
	for _, l := range a.GetEndpoints() {
		n += len(l.GetLbEndpoints())
		for _, e := range l.GetLbEndpoints() {
			callers = max(callers, len(callersOf(e)))
		}
	}
	return n, callers, nil
}

// FewerEndpoints is a packed load assignment with the given number of its endpoints, the nearest first. Those for some
// callers only and those for all others have half of it each, unless either needs less. Among equals each node has
// others: the picks of one node stay as endpoints come and go, and fewer are some of those that more would be.
func FewerEndpoints(packed *anypb.Any, most int, nodeName string) (*anypb.Any, error) {
	a := &endpointv3.ClusterLoadAssignment{}
	if err := packed.UnmarshalTo(a); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	var forAll, forSome []pick
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			p := pick{e, l.GetPriority(), place(nodeName, a.GetClusterName(), e)}
			if isForSome(e) {
				forSome = append(forSome, p)
			} else {
				forAll = append(forAll, p)
			}
		}
	}
	some := min(len(forSome), max(most/2, most-len(forAll)))
	kept := map[*endpointv3.LbEndpoint]bool{}
	keep(kept, forSome, some)
	keep(kept, forAll, most-some)
	a.Endpoints = slices.DeleteFunc(a.GetEndpoints(), func(l *endpointv3.LocalityLbEndpoints) bool {
		l.LbEndpoints = slices.DeleteFunc(l.GetLbEndpoints(), func(e *endpointv3.LbEndpoint) bool { return !kept[e] })
		return len(l.GetLbEndpoints()) == 0
	})
	return repacked(a)
}

// repacked is a load assignment whose priorities are sorted, without gaps, which Envoy doesn't take.
func repacked(a *endpointv3.ClusterLoadAssignment) (*anypb.Any, error) {
	next, last := uint32(0), uint32(0)
	for n, l := range a.GetEndpoints() {
		if n > 0 && l.GetPriority() != last {
			next++
		}
		last, l.Priority = l.GetPriority(), next
	}
	out := &anypb.Any{}
	if err := anypb.MarshalFrom(out, a, proto.MarshalOptions{Deterministic: true}); err != nil {
		return nil, fmt.Errorf("endpoints %s: %w", a.GetClusterName(), err)
	}
	return out, nil
}

// pick is an endpoint with its place among those of its priority.
type pick struct {
	endpoint *endpointv3.LbEndpoint
	priority uint32
	place    uint64
}

func keep(kept map[*endpointv3.LbEndpoint]bool, from []pick, most int) {
	slices.SortFunc(from, func(a, b pick) int {
		return cmp.Or(cmp.Compare(a.priority, b.priority), cmp.Compare(a.place, b.place))
	})
	for _, p := range from[:min(most, len(from))] {
		kept[p.endpoint] = true
	}
}

// place of an endpoint in a node's order of a load assignment's. Any hash does that is the same in every version.
func place(nodeName, assignment string, e *endpointv3.LbEndpoint) uint64 {
	at := e.GetEndpoint().GetAddress().GetSocketAddress()
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %d", nodeName, assignment, at.GetAddress(), at.GetPortValue()))
	return binary.BigEndian.Uint64(sum[:])
}

// isForSome tells whether an endpoint is for some callers only; see forCallers.
func isForSome(e *endpointv3.LbEndpoint) bool { return len(callersOf(e)) > 0 }

// callersOf are the namespaces whose callers alone an endpoint is for; none if it is for all others.
func callersOf(e *endpointv3.LbEndpoint) []*structpb.Value {
	return e.GetMetadata().GetFilterMetadata()[envoy.MetadataBalance].GetFields()[keyCaller].GetListValue().GetValues()
}
