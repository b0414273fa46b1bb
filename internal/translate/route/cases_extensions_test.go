// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	"time"

	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/test/wasmtest"
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

func modulesCase() bundle {
	rule := func(prefix string, w model.Wasm) model.Rule {
		w.Code, w.Digest = wasmtest.Plugin().Bytes(), "d"
		return model.Rule{
			Source: source, Match: path(model.MatchPrefix, prefix), Backends: backends(to(web, 1)),
			Filters: []model.Filter{{Extension: &model.Extension{Name: "module", Wasm: &w}}},
		}
	}
	headers := model.Processed{Headers: true}
	body := model.Processed{Headers: true, Body: model.BodyStreamed}
	return routed(rules(
		rule("/requests", model.Wasm{Request: headers, Config: "a: b", Root: "root"}),
		rule("/bodies", model.Wasm{Marked: true, Request: body, Response: body, Config: "no \xff text"}),
		rule("/answers", model.Wasm{Marked: true, Response: headers}),
	))
}
