// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"time"

	"github.com/fairway-mesh/fairway/internal/model"
)

func extensionsCase() bundle {
	rule := func(prefix string, all ...model.Extension) model.Rule {
		out := model.Rule{Source: source, Match: path(model.MatchPrefix, prefix), Backends: backends(to(web, 1))}
		for _, e := range all {
			out.Filters = append(out.Filters, model.Filter{Extension: &e})
		}
		return out
	}
	script := model.Extension{Name: "script", Lua: &model.Lua{Source: "x = \"\\n\"\r\n\x00é"}}
	process := func(p model.Processor) model.Extension {
		p.Service, p.Timeout = model.ServicePort{Namespace: "ext", Service: "process", Port: 80}, time.Second
		return model.Extension{Name: "process", Processor: &p}
	}
	all := model.Processed{Headers: true, Trailers: true, Body: model.BodyBuffered}
	grpc := rule("/", model.Extension{Name: "gone", Invalid: true})
	grpc.GRPC, grpc.Match = true, model.Match{}
	return routed(rules(
		rule("/script", script),
		rule("/both", script, process(model.Processor{Request: all})),
		rule("/open", process(model.Processor{
			Open: true, Response: model.Processed{Headers: true, Body: model.BodyStreamed}, Changes: []string{"x-user", "x.y"},
		})),
		rule("/invalid", model.Extension{Name: "gone", Invalid: true}),
		rule("/refused", script, model.Extension{Name: "script", Refused: true, Lua: script.Lua}),
		rule("/bad-name", process(model.Processor{Changes: []string{":path"}})),
		rule("/many", script, script, script, script, script),
		grpc,
	))
}
