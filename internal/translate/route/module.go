// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	_ "embed"
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	luav3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/lua/v3"
	wasmfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/wasm/v3"
	wasmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/wasm/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// A module in WebAssembly runs between two scripts of ours, in one chain: Envoy lets a module change any header, so the
// first script notes what none may change, and the second one looks whether that is still so. No more can happen
// between them: a module that would hold a message back at its headers traps (package wasm); and once the headers went
// on, Envoy gives them to the module no more.

//go:embed watch.lua
var watch string

// watched is before each script that watches over what somebody else makes of headers.
//
//go:embed watched.lua
var watched string

// moduleFilters are the chain of a module between its scripts.
func moduleFilters(name string, w model.Wasm) ([]*corev3.TypedExtensionConfig, error) {
	module := wasmModule(name, w)
	out := []*corev3.TypedExtensionConfig{
		envoy.Extension("envoy.filters.http.lua", besideModule("first", name, w, w.Request)),
		envoy.Extension("envoy.filters.http.wasm", module),
		envoy.Extension("envoy.filters.http.lua", besideModule("second", name, w, w.Response)),
	}
	return out, envoy.Check(module)
}

// besideModule is a script before or behind a module, which takes the length out of a message whose body may be
// changed: a request is shown to the module behind the first one, and an answer behind the second.
func besideModule(place, name string, w model.Wasm, next model.Processed) *luav3.Lua {
	return lua(fmt.Sprintf("local place, name, unframed = %s, %s, %t\nlocal mark, unmarked, asked = %s, %s, %s\n%s",
		luaString(place), luaString(name), next.Body != model.BodyNone, luaString(names.ModuleMark),
		luaString(names.ModuleUnmarked), luaString(marksIn(w)), watching("fairway.module", watch)))
}

// marksIn is where a module shows that it is there: in the first message that it is shown.
func marksIn(w model.Wasm) string {
	switch {
	case w.Marked && w.Request.Headers:
		return "request"
	case w.Marked && w.Response.Headers:
		return "answer"
	}
	return ""
}

// watching is a script that has in common with others how it notes what it saw, under a name of its own.
func watching(notes, script string) string {
	return "local notes = " + luaString(notes) + "\n" + watched + script
}

// reloadAfter is how long a module that failed is out of use; then it begins anew.
const reloadAfter = time.Second

func wasmModule(name string, w model.Wasm) *wasmfilterv3.Wasm {
	allowed := map[string]*wasmv3.SanitizationConfig{}
	for _, capability := range capabilities(w) {
		allowed[capability] = &wasmv3.SanitizationConfig{}
	}
	plugin := &wasmv3.PluginConfig{
		Name: text(name), RootId: text(w.Root),
		FailurePolicy: wasmv3.FailurePolicy_FAIL_RELOAD,
		ReloadConfig: &wasmv3.ReloadConfig{Backoff: &corev3.BackoffStrategy{
			BaseInterval: envoy.Duration(reloadAfter), MaxInterval: envoy.Duration(10 * reloadAfter),
		}},
		Vm: &wasmv3.PluginConfig_VmConfig{VmConfig: &wasmv3.VmConfig{
			// Machines are shared by this name and the code, whatever they may do: so not those of two extensions, nor of one
			// that is shown something else now.
			VmId:                        text(name + " " + shownAs(w.Request) + " " + shownAs(w.Response)),
			Runtime:                     "envoy.wasm.runtime.v8",
			CapabilityRestrictionConfig: &wasmv3.CapabilityRestrictionConfig{AllowedCapabilities: allowed},
			Code: &corev3.AsyncDataSource{Specifier: &corev3.AsyncDataSource_Local{Local: &corev3.DataSource{
				Specifier: &corev3.DataSource_InlineBytes{InlineBytes: w.Code},
			}}},
		}},
	}
	if w.Config != "" {
		plugin.Configuration = envoy.Any(wrapperspb.String(text(w.Config)))
	}
	return &wasmfilterv3.Wasm{Config: plugin}
}

func shownAs(p model.Processed) string {
	switch {
	case p.Headers && p.Body != model.BodyNone:
		return "bodies"
	case p.Headers:
		return "headers"
	}
	return "nothing"
}

// alwaysCapable is what every module may: see and change what it is shown, and write to the log. Of what is not here,
// calls and queues reach beyond the message; properties and foreign functions say what policies know callers by, and
// change it; another context is another request, which may be past its policies; clocks that tick, shared data and
// metrics stay behind; and Envoy's answer of a module goes by the second script, which answers in its place.
var alwaysCapable = []string{
	"proxy_log", "proxy_get_log_level", "proxy_get_current_time_nanoseconds",
	"proxy_get_header_map_value", "proxy_add_header_map_value", "proxy_replace_header_map_value",
	"proxy_remove_header_map_value", "proxy_get_header_map_pairs", "proxy_set_header_map_pairs",
	"proxy_get_header_map_size", "proxy_get_buffer_status", "proxy_get_buffer_bytes", "proxy_set_buffer_bytes",
	"proxy_done",
	"fd_write", "fd_fdstat_get", "environ_get", "environ_sizes_get", "args_get", "args_sizes_get", "clock_time_get",
	"random_get", "sched_yield", "proc_exit",

	"proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1", "malloc", "proxy_on_memory_allocate", "_initialize", "_start",
	"main", "proxy_on_context_create", "proxy_on_vm_start", "proxy_validate_configuration", "proxy_on_configure",
	"proxy_on_done", "proxy_on_delete",
}

// capabilities of a module: what it may call, and by which functions it is called.
func capabilities(w model.Wasm) []string {
	out := alwaysCapable[:len(alwaysCapable):len(alwaysCapable)]
	for _, m := range []struct {
		shown             model.Processed
		ofHeaders, ofBody string
	}{
		{w.Request, "proxy_on_request_headers", "proxy_on_request_body"},
		{w.Response, "proxy_on_response_headers", "proxy_on_response_body"},
	} {
		if m.shown.Headers {
			out = append(out, m.ofHeaders)
		}
		if m.shown.Headers && m.shown.Body != model.BodyNone {
			out = append(out, m.ofBody)
		}
	}
	return out
}
