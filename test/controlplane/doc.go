// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package controlplane measures what routes cost the control plane: two operators, each a process with a network
// namespace of its own, before a real API server, and clients that take what proxies would. Nothing else runs, so what
// the operators use is what the change cost.
//
// Its benchmarks need root and the binaries of the dev cluster:
//
//	go test -run '^$' -bench . -benchtime 1x ./test/controlplane
//
// -profiles names a directory for profiles of CPU and heap of both operators, for each thing that is measured.
package controlplane
