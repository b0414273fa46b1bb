// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"github.com/spf13/cobra"

	"github.com/fairway-mesh/fairway/internal/command"
)

// serving are the commands that the mesh's pods run.
func serving() []*cobra.Command {
	return []*cobra.Command{command.Operator(), command.Agent()}
}
