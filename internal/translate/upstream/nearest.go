// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package upstream

import (
	"bytes"
	"cmp"
	"fmt"
	"slices"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The proxies of a waypoint run on several nodes, and share what the operator sends. Whom an endpoint is near to goes
// with it, and the agent of each proxy puts those first that are near to its own: so the operator makes, sends and
// remembers one load assignment, however many nodes there are.

// Place is where a proxy runs; what isn't known is empty.
type Place struct{ Node, Zone string }

// Distances of an endpoint from a proxy.
const (
	onNode = iota
	inZone
	elsewhere
	distances
)

// nearTo is what an endpoint says of whom it is near to; nil if nothing.
func nearTo(e model.Endpoint) *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for key, list := range map[string][]string{
		names.MetadataNearNodes: e.ForNodes, names.MetadataNearZones: e.ForZones,
	} {
		if len(list) > 0 {
			values := &structpb.ListValue{}
			for _, v := range list {
				values.Values = append(values.Values, structpb.NewStringValue(v))
			}
			out.Fields[key] = structpb.NewListValue(values)
		}
	}
	if len(out.GetFields()) == 0 {
		return nil
	}
	return out
}

// Nearest is a packed load assignment as the proxy at a place is to have it: the endpoints that are near to it take
// all, and others only what these can't. Those that drain stay last. Once it is in order, it stays as it is.
func Nearest(packed *anypb.Any, at Place) (*anypb.Any, error) {
	if !bytes.Contains(packed.GetValue(), []byte(names.MetadataNear)) {
		return packed, nil // as nearly always: no need to look at the endpoints
	}
	a := &endpointv3.ClusterLoadAssignment{}
	if err := packed.UnmarshalTo(a); err != nil {
		return nil, fmt.Errorf("endpoints: %w", err)
	}
	type group struct {
		rank          uint32
		zone, subZone string
	}
	groups := map[group]*endpointv3.LocalityLbEndpoints{}
	for _, l := range a.GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			g := group{l.GetPriority()*distances + distance(e, at), l.GetLocality().GetZone(), l.GetLocality().GetSubZone()}
			if groups[g] == nil {
				groups[g] = &endpointv3.LocalityLbEndpoints{Priority: g.rank, Locality: l.GetLocality()}
			}
			delete(e.GetMetadata().GetFilterMetadata(), names.MetadataNear)
			groups[g].LbEndpoints = append(groups[g].LbEndpoints, e)
		}
	}
	a.Endpoints = nil
	for _, l := range groups {
		a.Endpoints = append(a.Endpoints, l)
	}
	slices.SortFunc(a.GetEndpoints(), func(a, b *endpointv3.LocalityLbEndpoints) int {
		return cmp.Or(cmp.Compare(a.GetPriority(), b.GetPriority()),
			cmp.Compare(a.GetLocality().GetZone(), b.GetLocality().GetZone()),
			cmp.Compare(a.GetLocality().GetSubZone(), b.GetLocality().GetSubZone()))
	})
	return repacked(a)
}

func distance(e *endpointv3.LbEndpoint, at Place) uint32 {
	near := e.GetMetadata().GetFilterMetadata()[names.MetadataNear].GetFields()
	is := func(key, value string) bool {
		return value != "" && slices.ContainsFunc(near[key].GetListValue().GetValues(), func(v *structpb.Value) bool {
			return v.GetStringValue() == value
		})
	}
	switch {
	case is(names.MetadataNearNodes, at.Node):
		return onNode
	case is(names.MetadataNearZones, at.Zone):
		return inZone
	}
	return elsewhere
}
