// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"runtime"
	"runtime/debug"
	"strings"

	"github.com/fairway-mesh/fairway/internal/names"
)

// versions of this program and of what it deploys.
type versions struct {
	Version string `json:"version"`
	// Envoy is the image of the proxies that this version deploys.
	Envoy string `json:"envoy"`
	Go    string `json:"go"`
	// Revision is the commit that the program was built from, with "-dirty" if the tree had changes.
	Revision string `json:"revision,omitempty"`
}

func buildVersion() versions {
	v := versions{Version: names.Version, Envoy: names.EnvoyImage, Go: runtime.Version()}
	if info, ok := debug.ReadBuildInfo(); ok {
		v.Revision = revision(info)
	}
	return v
}

// revision is the commit as Go puts it into a binary.
func revision(info *debug.BuildInfo) string {
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
