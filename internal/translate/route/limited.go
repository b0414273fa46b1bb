// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	_ "embed"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// A rate limit service says with its answer what headers Envoy is to add to the request, and to what is answered to it;
// Envoy adds any, and has no rules for them as it has for authorization services and processors. So there are two
// scripts of ours around the filter that asks, as around a module. They are filters of the listener, for that filter
// makes requests wait: nothing is behind it in its chain. A table only says that they are to run, and what else they
// watch over.

//go:embed limited.lua
var limited string

// besideLimits is a script before or behind the filter that asks, which does nothing until a table names it.
func besideLimits(place string) *luav3.Lua {
	source := "local place = " + luaString(place) + "\n" + watching("fairway.limits", limited)
	return &luav3.Lua{
		SourceCodes: map[string]*corev3.DataSource{
			filterLimits: {Specifier: &corev3.DataSource_InlineString{InlineString: source}},
		},
		ClearRouteCache: envoy.Bool(false),
	}
}

// watchLimits has the scripts run where a service is asked; nil where none is.
func watchLimits(l *model.GlobalLimit) map[string]*anypb.Any {
	if l == nil || l.Invalid {
		return nil
	}
	says := map[string]*structpb.Value{"service": structpb.NewStringValue(text(l.Service.ServiceName().String()))}
	if len(l.Reserved) > 0 {
		says["reserved"] = structpb.NewStringValue(text("," + strings.Join(l.Reserved, ",") + ","))
	}
	run := &luav3.LuaPerRoute{
		Override:      &luav3.LuaPerRoute_Name{Name: filterLimits},
		FilterContext: &structpb.Struct{Fields: says},
	}
	return map[string]*anypb.Any{filterBeforeLimits: envoy.Any(run), filterBehindLimits: envoy.Any(run)}
}
