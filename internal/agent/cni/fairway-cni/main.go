// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Command fairway-cni is Fairway's CNI plugin; see package plugin.
package main

import "github.com/fairway-mesh/fairway/internal/agent/cni/plugin"

func main() { plugin.Main() }
