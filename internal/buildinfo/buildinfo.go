// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package buildinfo says which commit a program was built from.
package buildinfo

import (
	"runtime/debug"
	"strings"
)

// Commit that this program was built from, with "-dirty" if the tree had changes; empty where Go didn't know.
func Commit() string {
	info, ok := debug.ReadBuildInfo()
	if !ok {
		return ""
	}
	return commitOf(info)
}

// commitOf is the commit as Go puts it into a binary.
func commitOf(info *debug.BuildInfo) string {
	settings := map[string]string{}
	for _, s := range info.Settings {
		if strings.HasPrefix(s.Key, "vcs.") {
			settings[s.Key] = s.Value
		}
	}
	commit := settings["vcs.revision"]
	if commit != "" && settings["vcs.modified"] == "true" {
		commit += "-dirty"
	}
	return commit
}
