// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// HeaderPort picks the route table of a request: the server name that its connection asked for. It is set anew on every
// request, before anything reads it, and taken out again where requests leave.
const HeaderPort = "x-fairway-port"

// Tables are the route tables of all ports, each a route configuration that a Scope leads to. The name is for
// statistics.
func Tables(name string) *hcmv3.ScopedRoutes {
	return &hcmv3.ScopedRoutes{
		Name: name,
		ScopeKeyBuilder: &hcmv3.ScopedRoutes_ScopeKeyBuilder{Fragments: []*hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder{
			{
				Type: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_{
					HeaderValueExtractor: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor{
						Name:        HeaderPort,
						ExtractType: &hcmv3.ScopedRoutes_ScopeKeyBuilder_FragmentBuilder_HeaderValueExtractor_Index{Index: 0},
					},
				},
			},
		}},
		RdsConfigSource: envoy.ADS(0),
		ConfigSpecifier: &hcmv3.ScopedRoutes_ScopedRds{ScopedRds: &hcmv3.ScopedRds{ScopedRdsConfigSource: envoy.ADS(0)}},
	}
}

// Scope leads the requests to an attachment to its route table, which has the same name.
func Scope(at model.Attachment) *routev3.ScopedRouteConfiguration {
	return &routev3.ScopedRouteConfiguration{
		Name:                   nameOf(at.Port),
		RouteConfigurationName: nameOf(at.Port),
		Key: &routev3.ScopedRouteConfiguration_Key{Fragments: []*routev3.ScopedRouteConfiguration_Key_Fragment{{
			Type: &routev3.ScopedRouteConfiguration_Key_Fragment_StringKey{
				StringKey: names.ServerName(at.Port.Namespace, at.Port.Service, at.Port.Port),
			},
		}}},
	}
}
