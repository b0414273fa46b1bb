// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import (
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gwv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// RateLimit bounds how many requests to a port of a Service are passed on, whatever route takes them, and whether or
// not the application would have answered.
//
// +kubebuilder:validation:XValidation:rule="has(self.local) || has(self.global)",message="set local, global or both"
type RateLimit struct {
	// A bound that each proxy of the waypoint keeps by itself: with 3 proxies, up to three times as many requests pass.
	// +optional
	Local *LocalRateLimit `json:"local,omitempty"`
	// A bound that a rate limit service keeps for all proxies. It is asked about each request that local lets pass.
	// +optional
	Global *GlobalRateLimit `json:"global,omitempty"`
}

// RateLimitUnit is a span of time.
// +kubebuilder:validation:Enum=Second;Minute;Hour
type RateLimitUnit string

// Spans of time.
const (
	RateLimitSecond RateLimitUnit = "Second"
	RateLimitMinute RateLimitUnit = "Minute"
	RateLimitHour   RateLimitUnit = "Hour"
)

// LocalRateLimit is a bucket of tokens, one for each port, in each proxy of the waypoint. A request takes one. The
// bucket begins full, and gets back a unit's worth over each unit, bit by bit. It begins anew, and full, when a proxy
// starts, and when the routes of the Service or the policy change.
type LocalRateLimit struct {
	// How many requests pass in a unit, and how many at once.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Requests int32 `json:"requests"`
	// Second, Minute or Hour.
	Unit RateLimitUnit `json:"unit"`
}

// GlobalRateLimit asks a service that speaks Envoy's rate limit protocol (envoy.service.ratelimit.v3, as
// github.com/envoyproxy/ratelimit does) whether a request may pass. What passes is configured there.
type GlobalRateLimit struct {
	// The port of the Service to ask. It must be declared as HTTP/2 (appProtocol kubernetes.io/h2c), and in another
	// namespace a ReferenceGrant must allow TrafficPolicies of this namespace to refer to it.
	BackendRef gwv1.BackendObjectReference `json:"backendRef"`
	// The domain that the service is asked for: the name of one of its sets of limits.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=253
	Domain string `json:"domain"`
	// What the service is told of a request. Each that applies is a question of its own, and a request passes when all
	// are answered so; one to which none applies passes.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Descriptors []RateLimitDescriptor `json:"descriptors"`
	// What becomes of requests when the service can't be asked, or doesn't answer in time: Open lets them pass, Closed
	// answers 503. Default Open.
	// +optional
	FailureMode FailureMode `json:"failureMode,omitempty"`
	// How long to wait for the answer. Default 100ms.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(s|ms)){1,2}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms') && duration(self) <= duration('10s')",message="timeout must be from 1ms to 10s"
	Timeout *metav1.Duration `json:"timeout,omitempty"`
}

// FailureMode is what becomes of requests that nobody decides on.
// +kubebuilder:validation:Enum=Open;Closed
type FailureMode string

// What becomes of requests that nobody decides on.
const (
	FailureModeOpen   FailureMode = "Open"
	FailureModeClosed FailureMode = "Closed"
)

// RateLimitDescriptor is a list of keys and values. It doesn't apply to a request that lacks one of its headers.
type RateLimitDescriptor struct {
	// Keys and values, in order.
	// +listType=atomic
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=4
	Entries []RateLimitEntry `json:"entries"`
}

// RateLimitEntry is a key, and where its value is from; exactly one of the other fields is set.
//
// +kubebuilder:validation:XValidation:rule="(has(self.header) ? 1 : 0) + (has(self.sourceIdentity) ? 1 : 0) + (has(self.value) ? 1 : 0) == 1",message="set exactly one of header, sourceIdentity and value"
type RateLimitEntry struct {
	// The key.
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Key string `json:"key"`
	// A header of the request, by name. Callers choose what it says.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	// +kubebuilder:validation:Pattern=`^[A-Za-z0-9!#$%&'*+.^_|~-]+$`
	Header *string `json:"header,omitempty"`
	// The SPIFFE ID of the caller, as proved by mutual TLS.
	// +optional
	SourceIdentity *SourceIdentity `json:"sourceIdentity,omitempty"`
	// This text.
	// +optional
	// +kubebuilder:validation:MinLength=1
	// +kubebuilder:validation:MaxLength=128
	Value *string `json:"value,omitempty"`
}

// SourceIdentity has no settings.
type SourceIdentity struct{}

// Faults are made by the waypoint. Of those that are set each strikes by itself.
//
// +kubebuilder:validation:XValidation:rule="has(self.delay) || has(self.abort)",message="set delay, abort or both"
type Faults struct {
	// Requests that wait before they are passed on.
	// +optional
	Delay *FaultDelay `json:"delay,omitempty"`
	// Requests that are answered an error in place of being passed on.
	// +optional
	Abort *FaultAbort `json:"abort,omitempty"`
}

// FaultDelay holds requests back.
type FaultDelay struct {
	// How long.
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1ms') && duration(self) <= duration('1h')",message="fixed must be from 1ms to 1h"
	Fixed metav1.Duration `json:"fixed"`
	// How many of a hundred requests. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *int32 `json:"percent,omitempty"`
}

// FaultAbort answers requests with an error.
type FaultAbort struct {
	// Status of the answer.
	// +kubebuilder:validation:Minimum=200
	// +kubebuilder:validation:Maximum=599
	Status int32 `json:"status"`
	// How many of a hundred requests. Default 100.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=100
	Percent *int32 `json:"percent,omitempty"`
}

// Buffering is what a waypoint holds until it is there in full.
//
// +kubebuilder:validation:XValidation:rule="has(self.maxRequestKiB) || has(self.maxResponseKiB)",message="set maxRequestKiB, maxResponseKiB or both"
type Buffering struct {
	// Requests are passed on when their body is there in full, and answered 413 if it is larger than this, in KiB. This
	// keeps slow clients away from the application, and costs the proxy as much memory for each request that comes. Don't
	// set it where requests are streams.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8192
	MaxRequestKiB *int32 `json:"maxRequestKiB,omitempty"`
	// Answers are passed on when their body is there in full, and become a 500 if it is larger than this, in KiB. This
	// frees the application of clients that read slowly, and costs the proxy as much memory for each answer that comes.
	// Don't set it where answers are streams, such as events or those of gRPC. WebSockets pass.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8192
	MaxResponseKiB *int32 `json:"maxResponseKiB,omitempty"`
}

// CompressionAlgorithm is a content coding.
// +kubebuilder:validation:Enum=Gzip;Brotli;Zstd
type CompressionAlgorithm string

// Content codings.
const (
	CompressionGzip   CompressionAlgorithm = "Gzip"
	CompressionBrotli CompressionAlgorithm = "Brotli"
	CompressionZstd   CompressionAlgorithm = "Zstd"
)

// Compression of answers. Text, JSON, JavaScript, XML and SVG of 30 bytes and more is compressed; what is compressed
// already, or must not be changed (Cache-Control: no-transform), is not.
type Compression struct {
	// The codings, of which each client has the one that it likes best, and if it has no preference, the first.
	// +listType=set
	// +kubebuilder:validation:MinItems=1
	// +kubebuilder:validation:MaxItems=3
	Algorithms []CompressionAlgorithm `json:"algorithms"`
}
