// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cli

import (
	"encoding/json"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"
)

// envoyListener is as much of envoy.config.listener.v3.Listener as is shown.
type envoyListener struct {
	Name       string        `json:"name"`
	Address    *envoyAddress `json:"address"`
	Additional []struct {
		Address envoyAddress `json:"address"`
	} `json:"additional_addresses"`
}

type envoyListenerState struct {
	Version  string        `json:"version_info"`
	Listener envoyListener `json:"listener"`
	Updated  time.Time     `json:"last_updated"`
}

// envoyListeners is envoy.admin.v3.ListenersConfigDump.
type envoyListeners struct {
	Static []struct {
		Listener envoyListener `json:"listener"`
		Updated  time.Time     `json:"last_updated"`
	} `json:"static_listeners"`
	Dynamic []struct {
		Name     string              `json:"name"`
		Active   *envoyListenerState `json:"active_state"`
		Warming  *envoyListenerState `json:"warming_state"`
		Draining *envoyListenerState `json:"draining_state"`
		Error    *struct {
			Details string `json:"details"`
		} `json:"error_state"`
	} `json:"dynamic_listeners"`
}

// where a listener listens, and in whose network namespace.
func (l envoyListener) where() (addresses, netns string) {
	if l.Address == nil {
		return "internal", "-"
	}
	all := []string{l.Address.String()}
	for _, a := range l.Additional {
		all = append(all, a.Address.String())
	}
	if s := l.Address.SocketAddress; s != nil && s.Netns != "" {
		netns = path.Base(s.Netns)
	}
	return strings.Join(all, ", "), dash(netns)
}

func drawListeners(t *table, section json.RawMessage, f filter, now time.Time) error {
	var dump envoyListeners
	if err := json.Unmarshal(section, &dump); err != nil {
		return fmt.Errorf("its listeners can't be read: %w", err)
	}
	var rows [][]string
	add := func(l envoyListener, state string, updated time.Time) {
		addresses, netns := l.where()
		rows = append(rows, []string{l.Name, addresses, netns, state, ago(updated, now)})
	}
	for _, l := range dump.Static {
		if f.all() {
			add(l.Listener, "static", l.Updated)
		}
	}
	for _, l := range dump.Dynamic {
		if !f.listener(l.Name) {
			continue
		}
		for state, s := range map[string]*envoyListenerState{
			"active": l.Active, "warming": l.Warming,
			"draining": l.Draining,
		} {
			if s != nil {
				s.Listener.Name = l.Name
				add(s.Listener, state, s.Updated)
			}
		}
		if l.Error != nil {
			rows = append(rows, []string{l.Name, "-", "-", "rejected: " + oneLine(l.Error.Details), "-"})
		}
	}
	sortRows(rows)
	t.rows([]string{"LISTENER", "ADDRESS", "NETNS", "STATE", "UPDATED"}, rows)
	return nil
}

// sortRows orders by all columns, the first one first.
func sortRows(rows [][]string) { slices.SortFunc(rows, slices.Compare) }
