// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	_ "embed"
	"slices"

	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

//go:embed bodiless.lua
var bodilessScript string

// bodiless keeps answers of a table whole where somebody else than Envoy and the application makes any: an extension or
// an authorization service. Envoy writes what these say behind the head of an answer also where there can be no body.
func bodiless(t model.RouteTable) map[string]*anypb.Any {
	if !answeredByOthers(t) {
		return nil
	}
	return map[string]*anypb.Any{
		FilterBodiless: envoy.Any(become(envoy.Extension("envoy.filters.http.lua", lua(bodilessScript)))),
	}
}

func answeredByOthers(t model.RouteTable) bool {
	byRule := func(r model.Rule) bool {
		return len(r.Extensions()) > 0 || r.ExternalAuth() != nil ||
			slices.ContainsFunc(r.Backends, func(b model.Backend) bool { return len(model.Asked(b.Guards)) > 0 })
	}
	return len(model.Asked(t.Guards)) > 0 || slices.ContainsFunc(t.Default, byRule) ||
		slices.ContainsFunc(t.Callers, func(c model.CallerRules) bool { return slices.ContainsFunc(c.Rules, byRule) })
}
