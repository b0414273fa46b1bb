// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package counting adds up what the agent's Envoy tells of callers: those who would have been refused if no policy were
// only tried, and those who come in plain text (Counter). The operator is told what has changed, now and then
// (Reporter). Neither grows with traffic.
package counting
