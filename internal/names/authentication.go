// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package names

import (
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"time"
)

// KeySource names a source of keys of tokens, by the namespace of the policy that asks for it and all that is said of
// it: the cluster that leads there, what is asked for, and how. It is short, and says nothing of a URI.
func KeySource(namespace, cluster, uri string, cacheFor, timeout time.Duration) string {
	sum := sha256.Sum256(fmt.Appendf(nil, "%q %q %d %d", cluster, uri, cacheFor, timeout))
	return namespace + "/" + hex.EncodeToString(sum[:16])
}

const (
	// FilterTokens is the HTTP filter of waypoints that verifies tokens, and its configuration (ECDS).
	FilterTokens = "authentication/tokens"
	// FilterForm is the one before it, which refuses tokens that can be read in two ways, and its configuration likewise.
	FilterForm = "authentication/form"
	// FilterAuthentication is the one by which tables tell it which policies a request must satisfy.
	FilterAuthentication = "fairway.authentication"
	// HeaderAuthentication is how: callers can't send it, and it never leaves.
	HeaderAuthentication = "x-fairway-authentication"
	// ClusterKeys is the static cluster of a waypoint that leads to the keys of tokens that its agent keeps.
	ClusterKeys = "keys"
	// ListenerKeys is the static listener by which the agent asks servers of keys through the proxy.
	ListenerKeys = "keys"
	// HeaderCluster says there by which cluster.
	HeaderCluster = "x-fairway-cluster"
	// MetadataTokens is the dynamic metadata that has what a verified token claims, by its policy's namespace and name.
	MetadataTokens = "envoy.filters.http.jwt_authn"
)
