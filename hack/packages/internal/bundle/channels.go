// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package bundle

import (
	"fmt"
	"slices"

	"github.com/blang/semver/v4"
)

// Channels of the package. Users follow stable unless they ask for another; preview has pre-releases as well, so that
// who follows it comes to each release, too.
const (
	stable  = "stable"
	preview = "preview"
)

// channelsOf says which channels a version is in, by the version alone, the default one first.
func channelsOf(v semver.Version) []string {
	if len(v.Pre) > 0 {
		return []string{preview}
	}
	return []string{stable, preview}
}

// skipRange is from which versions one may go to this one directly: any earlier one of the same minor version, and
// any of the minor version before. Who is further behind is led there by way of the versions between.
func skipRange(v semver.Version) string {
	from := semver.Version{Major: v.Major}
	if v.Minor > 0 {
		from.Minor = v.Minor - 1
	}
	return fmt.Sprintf(">=%s-0 <%s", from, v)
}

// entry of a channel, as a catalogue has it.
func entry(v semver.Version, replaces *semver.Version) map[string]any {
	out := map[string]any{"name": csvName(v), "skipRange": skipRange(v)}
	if replaces != nil {
		out["replaces"] = csvName(*replaces)
	}
	return out
}

// entries of a channel: each version replaces the one before, so that there is one newest, and one way to it from each.
func entries(channel string, versions []semver.Version) []any {
	in := slices.DeleteFunc(slices.Clone(versions), func(v semver.Version) bool {
		return !slices.Contains(channelsOf(v), channel)
	})
	slices.SortFunc(in, semver.Version.Compare)
	out := make([]any, 0, len(in))
	for n, v := range in {
		var replaces *semver.Version
		if n > 0 {
			replaces = &in[n-1]
		}
		out = append(out, entry(v, replaces))
	}
	return out
}

func csvName(v semver.Version) string { return packageName + ".v" + v.String() }
