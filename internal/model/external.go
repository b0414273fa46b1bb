// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package model

import (
	"strconv"

	"k8s.io/apimachinery/pkg/types"
)

// External is a host outside the cluster, as its XBackend has it and as waypoints send requests to it.
type External struct {
	ExternalHost
	Protocol ExternalProtocol
	// TLS that requests are sent in; nil: in plain text.
	TLS *BackendTLS
}

// ExternalHost is what a rule says of a host outside: where requests go.
type ExternalHost struct {
	// Name of the XBackend.
	Name types.NamespacedName
	// Version tells apart what the XBackend asked for at different times: no request meets one half of each.
	Version string
	// Host is looked up as it stands, and Port is connected to.
	Host string
	Port uint16
	// Secure: requests are sent in TLS, so the host's usual port is another one.
	Secure bool
}

// Address is the host with its port.
func (h ExternalHost) Address() string { return h.Host + ":" + strconv.Itoa(int(h.Port)) }

// Authority is the host as requests name it (RFC 9110, 7.2): with its port where it is not the usual one.
func (h ExternalHost) Authority() string {
	if usual := h.Secure && h.Port == 443 || !h.Secure && h.Port == 80; usual {
		return h.Host
	}
	return h.Address()
}

// ExternalProtocol is what a host outside is spoken to in.
type ExternalProtocol string

// Protocols of hosts outside.
const (
	// ExternalAsCaller is the version of HTTP in which the request came.
	ExternalAsCaller ExternalProtocol = "AsCaller"
	// ExternalNegotiated is HTTP/2 or HTTP/1.1, as TLS negotiates it.
	ExternalNegotiated ExternalProtocol = "Negotiated"
	ExternalHTTP11     ExternalProtocol = "HTTP11"
	ExternalHTTP2      ExternalProtocol = "HTTP2" // in TLS or in plain text
)
