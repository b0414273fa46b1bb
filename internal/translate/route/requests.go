// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package route

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	asyncfilesv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/async_files/v3"
	brotliv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/brotli/compressor/v3"
	gzipv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/gzip/compressor/v3"
	zstdv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/compression/zstd/compressor/v3"
	commonfaultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/fault/v3"
	bodysizev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/body_size_limit/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	compressorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/compressor/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	filebufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/file_system_buffer/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	ratelimitfilterv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	exprv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rate_limit_descriptors/expr/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
)

// This file is about what a TrafficPolicy does with all requests to a port: HTTP filters that are there for the tables
// that ask for them and for no others. The listener has a few filters for all of them, which a table tells what to be.

// policyFilters configure the filters of a table; nil where there is nothing to do. A buffer, a rate limit service and
// a delay make requests wait, so each is the last of its chain. The buffer is before the others, for it bounds no body
// that was there before it; and the limit that needs nobody is before all. Answers come the other way: they are held as
// the application gave them, and then compressed.
func policyFilters(r model.Requests) map[string]*anypb.Any {
	chains := map[string][]*corev3.TypedExtensionConfig{}
	add := func(filter, name string, m proto.Message) {
		chains[filter] = append(chains[filter], envoy.Extension("envoy.filters.http."+name, m))
	}
	if l := r.LocalLimit; l != nil {
		add(filterBodies, "local_ratelimit", localLimit(*l))
	}
	for n, c := range r.Compression {
		add(filterBodies, "compressor", compressor(c, n == 0))
	}
	if r.MaxBytes > 0 {
		// The buffer bounds what it holds itself, and not what was there before it.
		most := wrapperspb.UInt64(uint64(r.MaxBytes))
		add(filterBodies, "body_size_limit", &bodysizev3.BodySizeLimit{MaxRequestBytes: most})
		add(filterBodies, "buffer", &bufferv3.Buffer{MaxRequestBytes: envoy.UInt32(r.MaxBytes)})
	}
	if l := r.GlobalLimit; l != nil {
		add(filterLimits, "ratelimit", globalLimit(*l))
	}
	if r.Delay != nil || r.Abort != nil {
		add(filterFaults, "fault", faults(r))
	}
	if r.MaxAnswerBytes > 0 {
		add(filterAnswers, "file_system_buffer", holdAnswers(r.MaxAnswerBytes))
	}
	out := watchLimits(r.GlobalLimit)
	for filter, chain := range chains {
		out = merge(out, map[string]*anypb.Any{filter: envoy.Any(become(chain...))})
	}
	return out
}

// holdAnswers passes answers on when they are there in full. Envoy's filter for it would write what is beyond so many
// bytes to a disk; there may be nothing beyond, so that its thread has nothing to do, and such an answer becomes a 500.
func holdAnswers(most uint32) *filebufferv3.FileSystemBufferFilterConfig {
	behave := func(b *filebufferv3.BufferBehavior) *filebufferv3.StreamConfig {
		return &filebufferv3.StreamConfig{
			Behavior:                b,
			MemoryBufferBytesLimit:  wrapperspb.UInt64(uint64(most)),
			StorageBufferBytesLimit: wrapperspb.UInt64(0),
		}
	}
	return &filebufferv3.FileSystemBufferFilterConfig{
		ManagerConfig: &asyncfilesv3.AsyncFileManagerConfig{
			ManagerType: &asyncfilesv3.AsyncFileManagerConfig_ThreadPool_{
				ThreadPool: &asyncfilesv3.AsyncFileManagerConfig_ThreadPool{ThreadCount: 1},
			},
		},
		Request: behave(&filebufferv3.BufferBehavior{
			Behavior: &filebufferv3.BufferBehavior_Bypass_{Bypass: &filebufferv3.BufferBehavior_Bypass{}},
		}),
		Response: behave(&filebufferv3.BufferBehavior{
			Behavior: &filebufferv3.BufferBehavior_FullyBuffer_{FullyBuffer: &filebufferv3.BufferBehavior_FullyBuffer{}},
		}),
	}
}

// localLimit lets so many requests through at once, and then as many as come back with time.
func localLimit(l model.LocalLimit) *localratelimitv3.LocalRateLimit {
	all := &corev3.RuntimeFractionalPercent{DefaultValue: percent(100)}
	return &localratelimitv3.LocalRateLimit{
		StatPrefix: "fairway",
		TokenBucket: &typev3.TokenBucket{
			MaxTokens: l.Requests, TokensPerFill: envoy.UInt32(l.Requests), FillInterval: envoy.Duration(l.Unit),
		},
		FilterEnabled: all, FilterEnforced: all,
		EnableRetryAfterHeader:         true,
		RateLimitedAsResourceExhausted: true,
	}
}

// globalLimit asks a service. One that can't be used is asked for at a cluster that never is there.
func globalLimit(l model.GlobalLimit) *ratelimitfilterv3.RateLimit {
	to := clusterOf(l.Service, l.TLS)
	if l.Invalid {
		to = clusterInvalid
	}
	out := &ratelimitfilterv3.RateLimit{
		Domain: l.Domain, Timeout: envoy.Duration(l.Timeout), FailureModeDeny: l.Closed,
		StatusOnError:                  &typev3.HttpStatus{Code: typev3.StatusCode_ServiceUnavailable},
		RateLimitedAsResourceExhausted: true,
		DisableXEnvoyRatelimitedHeader: true,
		EnableRetryAfterHeader:         true,
		RateLimitService: &ratelimitv3.RateLimitServiceConfig{
			TransportApiVersion: corev3.ApiVersion_V3,
			GrpcService:         grpcBy(to, l.Service),
		},
	}
	for _, entries := range l.Descriptors {
		limit := &routev3.RateLimit{}
		for _, e := range entries {
			limit.Actions = append(limit.Actions, limitEntry(e))
		}
		out.RateLimits = append(out.RateLimits, limit)
	}
	return out
}

func limitEntry(e model.LimitEntry) *routev3.RateLimit_Action {
	switch {
	case e.Header != "":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_RequestHeaders_{
			RequestHeaders: &routev3.RateLimit_Action_RequestHeaders{
				HeaderName: matchedHeader(e.Header), DescriptorKey: e.Key,
			},
		}}
	case e.Value != "":
		return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{
			GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorKey: e.Key, DescriptorValue: e.Value},
		}}
	}
	return &routev3.RateLimit_Action{ActionSpecifier: &routev3.RateLimit_Action_Extension{
		Extension: envoy.Extension("envoy.rate_limit_descriptors.expr", &exprv3.Descriptor{
			DescriptorKey: e.Key,
			ExprSpecifier: &exprv3.Descriptor_Text{Text: "connection.uri_san_peer_certificate"},
		}),
	}}
}

func faults(r model.Requests) *faultv3.HTTPFault {
	out := &faultv3.HTTPFault{}
	if d := r.Delay; d != nil {
		out.Delay = &commonfaultv3.FaultDelay{
			FaultDelaySecifier: &commonfaultv3.FaultDelay_FixedDelay{FixedDelay: envoy.Duration(d.For)},
			Percentage:         percent(d.Percent),
		}
	}
	if a := r.Abort; a != nil {
		out.Abort = &faultv3.FaultAbort{
			ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: a.Status},
			Percentage: percent(a.Percent),
		}
	}
	return out
}

// compressor of answers for clients that take them so; the preferred one where they like several alike. What an ETag is
// for stays so, weakly.
func compressor(c model.Compression, preferred bool) *compressorv3.Compressor {
	var library *corev3.TypedExtensionConfig
	switch c {
	case model.CompressGzip:
		library = envoy.Extension("gzip", &gzipv3.Gzip{})
	case model.CompressBrotli:
		library = envoy.Extension("brotli", &brotliv3.Brotli{})
	case model.CompressZstd:
		library = envoy.Extension("zstd", &zstdv3.Zstd{})
	}
	return &compressorv3.Compressor{
		CompressorLibrary: library, ChooseFirst: preferred,
		ResponseDirectionConfig: &compressorv3.Compressor_ResponseDirectionConfig{
			WeakenEtagOnCompress: true,
		},
	}
}

func percent(p uint32) *typev3.FractionalPercent {
	return &typev3.FractionalPercent{Numerator: min(p, 100), Denominator: typev3.FractionalPercent_HUNDRED}
}
