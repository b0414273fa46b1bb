// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package wasm

import "maps"

// abiVersions are those of Proxy-Wasm that a module may be for.
var abiVersions = []string{"proxy_abi_version_0_2_0", "proxy_abi_version_0_2_1"}

// imports are the functions that Envoy has for modules, by module, with their signatures. Toolkits import what their
// modules never call, so here are also those that proxies refuse when they are called (package route).
var imports = map[string]map[string]string{
	"env": {
		"proxy_log": "iii:i", "proxy_get_log_level": "i:i",
		"proxy_get_current_time_nanoseconds": "i:i",
		"proxy_get_property":                 "iiii:i", "proxy_set_property": "iiii:i",
		"proxy_continue_stream": "i:i", "proxy_close_stream": "i:i",
		"proxy_send_local_response": "iiiiiiii:i",
		"proxy_get_shared_data":     "iiiii:i", "proxy_set_shared_data": "iiiii:i",
		"proxy_register_shared_queue": "iii:i", "proxy_resolve_shared_queue": "iiiii:i",
		"proxy_enqueue_shared_queue": "iii:i", "proxy_dequeue_shared_queue": "iii:i",
		"proxy_get_header_map_value": "iiiii:i", "proxy_add_header_map_value": "iiiii:i",
		"proxy_replace_header_map_value": "iiiii:i", "proxy_remove_header_map_value": "iii:i",
		"proxy_get_header_map_pairs": "iii:i", "proxy_set_header_map_pairs": "iii:i",
		"proxy_get_header_map_size": "ii:i",
		"proxy_get_buffer_status":   "iii:i", "proxy_get_buffer_bytes": "iiiii:i", "proxy_set_buffer_bytes": "iiiii:i",
		"proxy_http_call": "iiiiiiiiii:i",
		"proxy_grpc_call": "iiiiiiiiiiii:i", "proxy_grpc_stream": "iiiiiiiii:i",
		"proxy_grpc_send": "iiii:i", "proxy_grpc_cancel": "i:i", "proxy_grpc_close": "i:i",
		"proxy_get_status":                   "iii:i",
		"proxy_set_tick_period_milliseconds": "i:i", "proxy_set_effective_context": "i:i", "proxy_done": ":i",
		"proxy_define_metric": "iiii:i", "proxy_increment_metric": "il:i", "proxy_record_metric": "il:i",
		"proxy_get_metric":                "ii:i",
		"proxy_call_foreign_function":     "iiiiii:i",
		"emscripten_notify_memory_growth": "i:",
	},
	"wasi_snapshot_preview1": wasi,
	"wasi_unstable":          wasi,
}

var wasi = map[string]string{
	"path_open": "iiiiillii:i", "path_create_directory": "iii:i", "path_remove_directory": "iii:i",
	"path_rename": "iiiiii:i", "path_unlink_file": "iii:i",
	"fd_prestat_get": "ii:i", "fd_prestat_dir_name": "iii:i",
	"fd_write": "iiii:i", "fd_read": "iiii:i", "fd_seek": "ilii:i", "fd_close": "i:i",
	"fd_fdstat_get": "ii:i", "fd_fdstat_set_flags": "ii:i",
	"environ_get": "ii:i", "environ_sizes_get": "ii:i", "args_get": "ii:i", "args_sizes_get": "ii:i",
	"clock_time_get": "ili:i", "random_get": "ii:i", "sched_yield": ":i", "poll_oneoff": "iiii:i", "proc_exit": "i:",
	"path_filestat_get": "iiiii:i",
}

// exports are the functions of a module that Envoy calls, with their signatures.
var exports = map[string]string{
	"malloc": "i:i", "proxy_on_memory_allocate": "i:i", "_initialize": ":", "_start": ":", "main": "ii:i",
	"proxy_abi_version_0_2_0": ":", "proxy_abi_version_0_2_1": ":",
	"proxy_validate_configuration": "ii:i", "proxy_on_vm_start": "ii:i", "proxy_on_configure": "ii:i",
	"proxy_on_tick": "i:", "proxy_on_context_create": "ii:",
	"proxy_on_new_connection": "i:i", "proxy_on_downstream_data": "iii:i", "proxy_on_upstream_data": "iii:i",
	"proxy_on_downstream_connection_close": "ii:", "proxy_on_upstream_connection_close": "ii:",
	"proxy_on_request_headers": "iii:i", "proxy_on_request_body": "iii:i", "proxy_on_request_trailers": "ii:i",
	"proxy_on_request_metadata": "ii:i",
	"proxy_on_response_headers": "iii:i", "proxy_on_response_body": "iii:i", "proxy_on_response_trailers": "ii:i",
	"proxy_on_response_metadata":  "ii:i",
	"proxy_on_http_call_response": "iiiii:", "proxy_on_grpc_receive": "iii:", "proxy_on_grpc_close": "iii:",
	"proxy_on_grpc_receive_initial_metadata": "iii:", "proxy_on_grpc_receive_trailing_metadata": "iii:",
	"proxy_on_queue_ready": "ii:", "proxy_on_foreign_function": "iii:",
	"proxy_on_done": "i:i", "proxy_on_log": "i:", "proxy_on_delete": "i:",
}

// Imports are the functions that proxies have for modules, each module.name, with their signatures.
func Imports() map[string]string {
	out := map[string]string{}
	for module, all := range imports {
		for name, signature := range all {
			out[module+"."+name] = signature
		}
	}
	return out
}

// Exports are the functions of modules that proxies call, with their signatures.
func Exports() map[string]string { return maps.Clone(exports) }
