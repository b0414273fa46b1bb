// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package envoy

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	filelogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	runtimev3 "github.com/envoyproxy/go-control-plane/envoy/service/runtime/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/names"
)

// What is logged is a matter of two runtime keys, each 0 or 100 (per cent), which every access log reads line by line.
// If it were in the listeners, a change would replace them all, and drain every connection of the mesh.
const (
	runtimeLogAll    = "fairway.access_log.all"
	runtimeLogErrors = "fairway.access_log.errors"
	// runtimeLogFrom is a key that nobody sets; Envoy wants one beside every number that it compares with.
	runtimeLogFrom = "fairway.access_log.from_status"
)

// RuntimeLayer is the layer of runtime keys that proxies fetch. Without it they log everything.
func RuntimeLayer(logAll, logErrors bool) *runtimev3.Runtime {
	percent := func(on bool) *structpb.Value {
		if on {
			return structpb.NewNumberValue(100)
		}
		return structpb.NewNumberValue(0)
	}
	return &runtimev3.Runtime{Name: names.RuntimeLayer, Layer: &structpb.Struct{Fields: map[string]*structpb.Value{
		runtimeLogAll:    percent(logAll),
		runtimeLogErrors: percent(logErrors),
	}}}
}

// Failed tells a connection or stream that failed from one that did not.
type Failed = *accesslogv3.AccessLogFilter

// Flagged connections are those that Envoy gave a response flag.
func Flagged() Failed {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
		ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{},
	}}
}

// AnsweredFrom a status on.
func AnsweredFrom(status uint32) Failed {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_StatusCodeFilter{
		StatusCodeFilter: &accesslogv3.StatusCodeFilter{Comparison: &accesslogv3.ComparisonFilter{
			Op:    accesslogv3.ComparisonFilter_GE,
			Value: &corev3.RuntimeUInt32{DefaultValue: status, RuntimeKey: runtimeLogFrom},
		}},
	}}
}

// NotProved are the connections of an mTLS listener whose handshake failed.
func NotProved() Failed { return expression(`connection.transport_failure_reason != ""`) }

// NoTable are the requests for which there is no route table at all.
func NoTable() Failed {
	return bothOf(
		&accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ResponseFlagFilter{
			ResponseFlagFilter: &accesslogv3.ResponseFlagFilter{Flags: []string{"NR"}},
		}},
		expression(`!has(xds.virtual_host_name) || xds.virtual_host_name == ""`),
	)
}

func expression(cel string) Failed {
	return &accesslogv3.AccessLogFilter{
		FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{
			ExtensionFilter: &accesslogv3.ExtensionFilter{
				Name: "envoy.access_loggers.extension_filters.cel",
				ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{
					TypedConfig: Any(&celv3.ExpressionFilter{Expression: cel}),
				},
			},
		},
	}
}

// inMetadata are those with a text in their dynamic metadata.
func inMetadata(filter, key, text string) Failed {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_MetadataFilter{
		MetadataFilter: &accesslogv3.MetadataFilter{
			Matcher: &matcherv3.MetadataMatcher{
				Filter: filter,
				Path: []*matcherv3.MetadataMatcher_PathSegment{{
					Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: key},
				}},
				Value: &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{
					StringMatch: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: text}},
				}},
			},
			MatchIfKeyNotFound: wrapperspb.Bool(false),
		},
	}}
}

func bothOf(a, b Failed) Failed {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_AndFilter{
		AndFilter: &accesslogv3.AndFilter{Filters: []*accesslogv3.AccessLogFilter{a, b}},
	}}
}

// EitherOf two kinds of failure.
func EitherOf(a, b Failed) Failed {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_OrFilter{
		OrFilter: &accesslogv3.OrFilter{Filters: []*accesslogv3.AccessLogFilter{a, b}},
	}}
}

// StdoutLog writes one JSON line per connection or stream to standard output, or one for each that failed, or none, as
// the mesh has its access log set. Keys are sorted by Envoy.
func StdoutLog(fields map[string]string, failed Failed) *accesslogv3.AccessLog {
	log := StdoutErrors(fields, failed)
	log.Filter = EitherOf(ifRuntime(runtimeLogAll), log.Filter)
	return log
}

// StdoutErrors writes a line for what failed only. It is for what another log has a line of if it went well.
func StdoutErrors(fields map[string]string, failed Failed) *accesslogv3.AccessLog {
	return &accesslogv3.AccessLog{
		Name:   "envoy.access_loggers.file",
		Filter: bothOf(ifRuntime(runtimeLogErrors), failed),
		ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: Any(&filelogv3.FileAccessLog{
			Path: "/dev/stdout",
			AccessLogFormat: &filelogv3.FileAccessLog_LogFormat{LogFormat: &corev3.SubstitutionFormatString{
				Format:          &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: Struct(fields)},
				OmitEmptyValues: true,
			}},
		})},
	}
}

func ifRuntime(key string) *accesslogv3.AccessLogFilter {
	return &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_RuntimeFilter{
		RuntimeFilter: &accesslogv3.RuntimeFilter{
			RuntimeKey:               key,
			PercentSampled:           &typev3.FractionalPercent{Numerator: 100},
			UseIndependentRandomness: true, // a request's ID is not looked at
		},
	}}
}
