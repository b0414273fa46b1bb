// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"cmp"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/fairway-mesh/fairway/internal/names"
)

// envoyRoutes is as much of envoy.admin.v3.RoutesConfigDump as is shown.
type envoyRoutes struct {
	Static  []envoyRouteState `json:"static_route_configs"`
	Dynamic []envoyRouteState `json:"dynamic_route_configs"`
}

type envoyRouteState struct {
	Config struct {
		Name         string       `json:"name"`
		Filters      envoyFilters `json:"typed_per_filter_config"`
		VirtualHosts []struct {
			Domains []string     `json:"domains"`
			Routes  []envoyRoute `json:"routes"`
			Filters envoyFilters `json:"typed_per_filter_config"`
		} `json:"virtual_hosts"`
	} `json:"route_config"`
}

type envoyRoute struct {
	Name    string       `json:"name"`
	Match   envoyMatch   `json:"match"`
	Filters envoyFilters `json:"typed_per_filter_config"`
	Route   *struct {
		Cluster  string `json:"cluster"`
		Weighted *struct {
			Clusters []struct {
				Name    string       `json:"name"`
				Weight  uint32       `json:"weight"`
				Filters envoyFilters `json:"typed_per_filter_config"`
			} `json:"clusters"`
		} `json:"weighted_clusters"`
		Timeout string `json:"timeout"`
		Retry   *struct {
			Number *uint32 `json:"num_retries"`
		} `json:"retry_policy"`
		Mirrors []struct {
			Cluster string `json:"cluster"`
		} `json:"request_mirror_policies"`
	} `json:"route"`
	Redirect *json.RawMessage `json:"redirect"`
	Direct   *struct {
		Status uint32 `json:"status"`
	} `json:"direct_response"`
}

type envoyMatch struct {
	Prefix        string        `json:"prefix"`
	Path          string        `json:"path"`
	PathSeparated string        `json:"path_separated_prefix"`
	Regex         *envoyRegex   `json:"safe_regex"`
	Headers       []envoyHeader `json:"headers"`
	Query         []envoyHeader `json:"query_parameters"`
	FilterState   []struct {
		Key    string      `json:"key"`
		String envoyString `json:"string_match"`
	} `json:"filter_state"`
}

type envoyRegex struct {
	Regex string `json:"regex"`
}

type envoyHeader struct {
	Name    string       `json:"name"`
	String  *envoyString `json:"string_match"`
	Present *bool        `json:"present_match"`
}

type envoyString struct {
	Exact  *string     `json:"exact"`
	Prefix string      `json:"prefix"`
	Regex  *envoyRegex `json:"safe_regex"`
}

func (s envoyString) String() string {
	switch {
	case s.Exact != nil:
		return "=" + *s.Exact
	case s.Prefix != "":
		return "=" + s.Prefix + "*"
	case s.Regex != nil:
		return "~" + s.Regex.Regex
	}
	return ""
}

func (m envoyMatch) String() string {
	var out []string
	switch {
	case m.Path != "":
		out = append(out, "= "+m.Path)
	case m.PathSeparated != "":
		out = append(out, m.PathSeparated+"[/...]")
	case m.Regex != nil:
		out = append(out, "~ "+m.Regex.Regex)
	default:
		out = append(out, cmp.Or(m.Prefix, "/")+"*")
	}
	for _, h := range slices.Concat(m.Headers, m.Query) {
		value := ""
		if h.String != nil {
			value = h.String.String()
		}
		out = append(out, h.Name+value)
	}
	for _, s := range m.FilterState {
		out = append(out, s.Key+s.String.String())
	}
	return strings.Join(out, " ")
}

// action says where a request goes.
func (r envoyRoute) action() string {
	switch {
	case r.Redirect != nil:
		return "redirect"
	case r.Direct != nil:
		return fmt.Sprintf("answer %d", r.Direct.Status)
	case r.Route == nil:
		return "-"
	}
	to := r.Route.Cluster
	if w := r.Route.Weighted; w != nil {
		var parts []string
		for _, c := range w.Clusters {
			parts = append(parts, fmt.Sprintf("%d %s", c.Weight, c.Name))
		}
		to = strings.Join(parts, " | ")
	}
	for _, m := range r.Route.Mirrors {
		to += " + mirror " + m.Cluster
	}
	return dash(to)
}

// limits are timeout and retries.
func (r envoyRoute) limits() (timeout, retries string) {
	if r.Route == nil {
		return "-", "-"
	}
	if timeout = r.Route.Timeout; timeout == "0s" {
		timeout = "none"
	}
	if p := r.Route.Retry; p != nil {
		retries = "1"
		if p.Number != nil {
			retries = fmt.Sprint(*p.Number)
		}
	}
	return dash(timeout), dash(retries)
}

// through names the filters that requests go through: of several backends, those of each where they differ.
func (r envoyRoute) through(outer envoyFilters) string {
	own := outer.and(r.Filters)
	if r.Route == nil || r.Route.Weighted == nil {
		return own.String()
	}
	var all []string
	for _, c := range r.Route.Weighted.Clusters {
		if s := own.and(c.Filters).String(); !slices.Contains(all, s) {
			all = append(all, s)
		}
	}
	return strings.Join(all, " or ")
}

// drawRoutes keeps Envoy's order within a configuration: the first match wins.
func drawRoutes(t *table, section json.RawMessage, f filter, _ time.Time) error {
	var dump envoyRoutes
	if err := json.Unmarshal(section, &dump); err != nil {
		return fmt.Errorf("its routes can't be read: %w", err)
	}
	if !f.all() {
		t.line("A pod has no routes of its own: waypoints route its requests. Name a waypoint's pod, or use %q for the "+
			"pod's connections.",
			"fairway proxy clusters")
		return nil
	}
	all := slices.Concat(dump.Dynamic, dump.Static)
	slices.SortStableFunc(all, func(a, b envoyRouteState) int { return cmp.Compare(a.Config.Name, b.Config.Name) })
	var rows [][]string
	for _, state := range all {
		for _, h := range state.Config.VirtualHosts {
			for _, r := range h.Routes {
				timeout, retries := r.limits()
				match := r.Match.String()
				if strings.HasPrefix(r.Name, names.AmbiguousRoutes) {
					match = "other spellings" // long expressions that nobody wrote
				}
				rows = append(rows, []string{
					dash(state.Config.Name), strings.Join(h.Domains, ","), match, r.action(), timeout,
					retries, dash(r.Name), r.through(state.Config.Filters.and(h.Filters)),
				})
			}
		}
	}
	t.rows([]string{"ROUTES", "DOMAIN", "MATCH", "TO", "TIMEOUT", "RETRIES", "RULE", "FILTERS"}, rows)
	return nil
}
