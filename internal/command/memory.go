// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package command

import (
	"os"
	"runtime/debug"

	"github.com/KimMachineGun/automemlimit/memlimit"
	"github.com/go-logr/logr"
)

// boundMemory has the process's collector keep to nine tenths of the memory that its container may have, for beyond the
// whole of it the process is killed. What the user sets, GOMEMLIMIT and GOGC, goes first.
func boundMemory(log logr.Logger) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	limit, err := memlimit.Set() // also says that it is MaxInt64 where nothing bounds the container
	if err != nil {
		log.Error(err, "the memory that this container may have is not known: set GOMEMLIMIT to nine tenths of it")
		return
	}
	log.V(1).Info("memory is bounded", "GOMEMLIMIT", limit)
}

// gcPercent is how much may come to what is in use until garbage is collected, in percent of that. Between changes
// operator and agents do little, so they have the time; docs/design/incremental-engine.md has the operator's figures.
const gcPercent = 50
