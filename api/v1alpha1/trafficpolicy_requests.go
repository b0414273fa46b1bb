// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// RateLimit bounds how many requests to a port of a Service are passed on, whatever route takes them, and whether or not
// the application would have answered.
//
// +kubebuilder:validation:XValidation:rule="has(self.local)",message="set local"
type RateLimit struct {
	// A bound that each proxy of the waypoint keeps by itself: with 3 proxies, up to three times as many requests pass.
	// +optional
	Local *LocalRateLimit `json:"local,omitempty"`
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

// LocalRateLimit is a bucket of tokens, one for each port, in each proxy of the waypoint. A request takes one. The bucket
// begins full, and gets back a unit's worth over each unit, bit by bit. It begins anew, and full, when a proxy starts,
// and when the routes of the Service or the policy change.
type LocalRateLimit struct {
	// How many requests pass in a unit, and how many at once.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000000
	Requests int32 `json:"requests"`
	// Second, Minute or Hour.
	Unit RateLimitUnit `json:"unit"`
}

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
type Buffering struct {
	// Requests are passed on when their body is there in full, and answered 413 if it is larger than this, in KiB. This
	// keeps slow clients away from the application, and costs the proxy as much memory for each request that comes. Don't
	// set it where requests are streams.
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=8192
	MaxRequestKiB int32 `json:"maxRequestKiB"`
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
