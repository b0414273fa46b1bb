// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build !linux

package main

import "github.com/spf13/cobra"

// serving is empty: pods of the mesh run on Linux, and what they do takes its kernel. The user's commands run anywhere.
func serving() []*cobra.Command { return nil }
