// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package v1alpha1

import metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

// CircuitBreaking bounds what each proxy of a waypoint has under way to a port. Each bound is 65536 unless set, which
// is also the most: a server that hangs must not use up the proxy.
type CircuitBreaking struct {
	// Connections that are open. Requests over HTTP/1.1 need one each. Each worker thread of the proxy (2, unless its
	// parameters say otherwise) may have one all the same.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	MaxConnections *int32 `json:"maxConnections,omitempty"`
	// Requests, or connections to a port that isn't HTTP, that wait for a connection.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	MaxPendingRequests *int32 `json:"maxPendingRequests,omitempty"`
	// Requests that were sent and not answered in full yet.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=65536
	MaxRequests *int32 `json:"maxRequests,omitempty"`
	// Requests that are being sent again at a time, for whatever reason; 0: none is. The retryConstraint of an
	// XBackendTrafficPolicy takes its place.
	// +optional
	// +kubebuilder:validation:Minimum=0
	// +kubebuilder:validation:Maximum=65536
	MaxRetries *int32 `json:"maxRetries,omitempty"`
}

// OutlierDetection leaves out endpoints that fail. Each proxy judges by the answers that it got itself. A connection
// that can't be made, or breaks off, counts as a 503.
//
// +kubebuilder:validation:XValidation:rule="has(self.consecutive5xx) || has(self.consecutiveGatewayErrors)",message="set consecutive5xx, consecutiveGatewayErrors or both"
type OutlierDetection struct {
	// How many answers of 500 and above in a row put an endpoint out.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	Consecutive5xx *int32 `json:"consecutive5xx,omitempty"`
	// How many answers of 502, 503 and 504 in a row put an endpoint out.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=1000000
	ConsecutiveGatewayErrors *int32 `json:"consecutiveGatewayErrors,omitempty"`
	// How often it is looked whether an endpoint may come back. Default 10s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('1h')",message="interval must be from 100ms to 1h"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// How long an endpoint stays out the first time; a second time in a row twice as long, and so on, up to 5m or this.
	// Default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('100ms') && duration(self) <= duration('24h')",message="baseEjectionTime must be from 100ms to 24h"
	BaseEjectionTime *metav1.Duration `json:"baseEjectionTime,omitempty"`
	// The share of the endpoints that may be out at a time, in percent. Default 50. Where more than half are out all the
	// same, requests go to all of them again.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=100
	MaxEjectionPercent *int32 `json:"maxEjectionPercent,omitempty"`
}

// Connection is how a waypoint's connections to the endpoints of a port are made and kept.
type Connection struct {
	// How long a connection may take to be made, TLS within the mesh included. Then another endpoint is tried.
	// Default 4s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1m')",message="connectTimeout must be from 10ms to 1m"
	ConnectTimeout *metav1.Duration `json:"connectTimeout,omitempty"`
	// How long a connection is kept without a request, on ports that are HTTP. Default 1s, for it must be shorter than
	// what the application itself keeps it for: where the application ends a connection first, a request that is just
	// being sent fails with 503, unless it is safe to repeat.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('10ms') && duration(self) <= duration('1h')",message="idleTimeout must be from 10ms to 1h"
	IdleTimeout *metav1.Duration `json:"idleTimeout,omitempty"`
	// How long a connection is used for new requests, on ports that are HTTP; it ends when the last request on it is
	// answered. Default: for ever. For applications behind which something changes, or to spread over new endpoints.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s|ms)){1,4}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('24h')",message="maxConnectionDuration must be from 1s to 24h"
	MaxConnectionDuration *metav1.Duration `json:"maxConnectionDuration,omitempty"`
	// When a server that is silent is asked whether it is there still.
	// +optional
	TCPKeepalive *TCPKeepalive `json:"tcpKeepalive,omitempty"`
}

// TCPKeepalive finds servers that are gone without a word.
type TCPKeepalive struct {
	// After how long without a byte, in whole seconds. Default 30s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('9h')",message="time must be from 1s to 9h"
	Time *metav1.Duration `json:"time,omitempty"`
	// How long after a question without an answer the next one is asked, in whole seconds. Default 10s.
	// +optional
	// +kubebuilder:validation:Type=string
	// +kubebuilder:validation:MaxLength=32
	// +kubebuilder:validation:Pattern=`^([0-9]{1,5}(h|m|s)){1,3}$`
	// +kubebuilder:validation:XValidation:rule="duration(self) >= duration('1s') && duration(self) <= duration('9h')",message="interval must be from 1s to 9h"
	Interval *metav1.Duration `json:"interval,omitempty"`
	// After how many questions without an answer the connection ends. Default 3.
	// +optional
	// +kubebuilder:validation:Minimum=1
	// +kubebuilder:validation:Maximum=127
	Probes *int32 `json:"probes,omitempty"`
}
