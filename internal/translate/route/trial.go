// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Trial is the routes of a table, for a proxy to say whether it takes them.
func Trial(trustDomain string, t model.RouteTable) *routev3.RouteConfiguration {
	rc, _ := Configuration(trustDomain, t) // what can't be expressed is no part of the table either
	rc.Name = names.RouteTrial
	return rc
}
