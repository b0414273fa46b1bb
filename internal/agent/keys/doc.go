// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package keys keeps the public keys by which a waypoint's Envoy verifies tokens, so that what was fetched once is
// there for every configuration of the filter, whichever policy is edited and however long a server is away. Envoy asks
// it for keys (package translate/authentication), and it asks their servers through Envoy, which alone can reach them.
package keys
