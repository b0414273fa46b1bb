// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"bytes"
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/encoding/protojson"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// TestRoutesSayWhomTheyAsk: of a table as a waypoint gets it, whatever it has requests go through is named, in order.
func TestRoutesSayWhomTheyAsk(t *testing.T) {
	of := func(name string) model.ServicePort {
		return model.ServicePort{Namespace: "shop", Service: name, Port: 80}
	}
	guard := model.Guard{
		Authentication: []model.PolicyName{{Namespace: "shop", Name: "x"}},
		Asked:          []model.ExternalAuth{{Service: of("owner"), GRPC: true, Timeout: time.Second}},
	}
	source := model.ObjectRef{Kind: "HTTPRoute", Namespace: "shop", Name: "web"}
	rules := model.RouteTable{
		Attachment: model.Attachment{Port: of("web")}, Protocol: model.ProtocolHTTP,
		Requests: model.Requests{
			LocalLimit:  &model.LocalLimit{Requests: 1, Unit: time.Second},
			GlobalLimit: &model.GlobalLimit{Service: of("limits"), Domain: "d", Timeout: time.Second},
			MaxBytes:    1, Abort: &model.Abort{Status: 500, Percent: 1},
		},
		Default: []*model.Rule{{
			Source: source, RuleName: "asks",
			Filters: []model.Filter{
				{CORS: &model.CORS{AllowOrigins: []string{"*"}}},
				{ExternalAuth: &model.ExternalAuth{Service: of("own"), Timeout: time.Second}},
				{Extension: &model.Extension{Name: "a", Lua: &model.Lua{Source: "x = 1"}}},
				{Extension: &model.Extension{Name: "b", Processor: &model.Processor{
					Service: of("processor"), Timeout: time.Second, Request: model.Processed{Headers: true},
				}}},
			},
			Backends: []model.Backend{{Port: of("web"), Weight: 1, Guards: []model.Guard{guard}}, {Port: of("v2"), Weight: 1}},
		}},
	}
	config, errs := route.Configuration("cluster.local", rules)
	require.Empty(t, errs)
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(config)
	require.NoError(t, err)
	dump, err := json.Marshal(map[string]any{
		"dynamic_route_configs": []any{map[string]any{"route_config": json.RawMessage(text)}},
	})
	require.NoError(t, err)
	var out bytes.Buffer
	require.NoError(t, drawRoutes(&table{out: &out}, dump, filter{}, time.Time{}))
	const own = "cors, ext_authz service/shop/own/80, lua, ext_proc service/shop/processor/80"
	const all = "local_ratelimit, buffer, ratelimit service/shop/limits/80, fault"
	require.Contains(t, out.String(), own+", tokens shop/x, ext_authz service/shop/owner/80, "+all+" or "+own+", "+all)
}
