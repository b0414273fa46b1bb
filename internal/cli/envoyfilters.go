// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/route"
)

// envoyFilters is how a part of a table configures HTTP filters, by their names. The more specific part goes first.
type envoyFilters map[string]json.RawMessage

// and those of a more specific part.
func (f envoyFilters) and(specific envoyFilters) envoyFilters {
	out := maps.Clone(f)
	if out == nil {
		out = envoyFilters{}
	}
	maps.Copy(out, specific)
	return out
}

// unshown are filters that only prepare for another one, or keep what comes of it.
var unshown = []string{"header_mutation", "body_size_limit", "stateful_session", "set_filter_state"}

// String names what requests go through, in the order of the filters, and which clusters are asked.
func (f envoyFilters) String() string {
	var out []string
	for _, filter := range route.Filters() {
		var config any
		if json.Unmarshal(f[filter.GetName()], &config) != nil {
			continue // it isn't there
		}
		switch found := filtersIn(config); {
		case filter.GetName() == route.FilterBodiless, strings.HasPrefix(filter.GetName(), route.FilterLengths):
		case filter.GetName() == names.FilterAuthentication:
			if policies := valueOf(config, names.HeaderAuthentication); policies != "" {
				out = append(out, "tokens "+policies)
			}
		case strings.HasSuffix(filter.GetName(), ".cors"):
			out = append(out, "cors")
		default:
			out = append(out, found...)
		}
	}
	return dash(strings.Join(out, ", "))
}

// filtersIn finds the filters that a composite one becomes, of whatever types they are.
func filtersIn(v any) (out []string) {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			out = append(out, filtersIn(e)...)
		}
	case map[string]any:
		name, _ := v["name"].(string)
		kind, isFilter := strings.CutPrefix(name, "envoy.filters.http.")
		if config := v["typed_config"]; isFilter && config != nil {
			if slices.Contains(unshown, kind) {
				return nil
			}
			return []string{strings.TrimSpace(kind + " " + clusterIn(config))}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			out = append(out, filtersIn(v[key])...)
		}
	}
	return out
}

// clusterIn finds the cluster that a filter asks.
func clusterIn(v any) string {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if c := clusterIn(e); c != "" {
				return c
			}
		}
	case map[string]any:
		for _, key := range []string{"cluster_name", "cluster"} {
			if c, _ := v[key].(string); c != "" {
				return c
			}
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if c := clusterIn(v[key]); c != "" {
				return c
			}
		}
	}
	return ""
}

// valueOf finds what a header is set to.
func valueOf(v any, header string) string {
	switch v := v.(type) {
	case []any:
		for _, e := range v {
			if s := valueOf(e, header); s != "" {
				return s
			}
		}
	case map[string]any:
		if v["key"] == header {
			s, _ := v["value"].(string)
			return s
		}
		for _, key := range slices.Sorted(maps.Keys(v)) {
			if s := valueOf(v[key], header); s != "" {
				return s
			}
		}
	}
	return ""
}
