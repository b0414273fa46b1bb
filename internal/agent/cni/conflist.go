// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
	"github.com/fairway-mesh/fairway/internal/names"
)

// Entry is our element of a configuration list.
type Entry struct {
	Type              string   `json:"type"`
	Socket            string   `json:"socket"`
	StateFile         string   `json:"stateFile"`
	ExcludeNamespaces []string `json:"excludeNamespaces"`
	TimeoutSeconds    int      `json:"timeoutSeconds"`
}

// NewEntry is the element for an agent with these paths.
func NewEntry(socket, stateFile string, excludeNamespaces []string) Entry {
	return Entry{
		Type: names.CNIPlugin, Socket: socket, StateFile: stateFile,
		ExcludeNamespaces: excludeNamespaces, TimeoutSeconds: plugin.DefaultTimeoutSeconds,
	}
}

// list is a CNI network configuration list; fields that don't concern us are kept as they are.
type list struct {
	fields  map[string]json.RawMessage
	plugins []json.RawMessage
}

func parseList(content []byte) (*list, error) {
	l := &list{}
	if err := json.Unmarshal(content, &l.fields); err != nil {
		return nil, fmt.Errorf("not a CNI configuration list: %w", err)
	}
	if err := json.Unmarshal(l.fields["plugins"], &l.plugins); err != nil || len(l.plugins) == 0 {
		return nil, errors.New("not a CNI configuration list: it has no plugins")
	}
	return l, nil
}

// parseSingle makes a list of one plugin's configuration, as the runtime itself does with a .conf file.
func parseSingle(content []byte) (*list, error) {
	var conf map[string]json.RawMessage
	if err := json.Unmarshal(content, &conf); err != nil {
		return nil, fmt.Errorf("not a CNI configuration: %w", err)
	}
	if len(conf["type"]) == 0 {
		return nil, errors.New("not a CNI configuration: it has no type")
	}
	l := &list{fields: map[string]json.RawMessage{}}
	// libcni gives the list's own version and name to each plugin.
	for _, key := range []string{"cniVersion", "name"} {
		if v, ok := conf[key]; ok {
			l.fields[key] = v
			delete(conf, key)
		}
	}
	single, err := marshal(conf)
	if err != nil {
		return nil, err
	}
	l.plugins = []json.RawMessage{single}
	return l, nil
}

// set puts the entry at the end, in place of one that is there, and tells whether that changed anything.
func (l *list) set(e Entry) (changed bool, err error) {
	want, err := marshal(e)
	if err != nil {
		return false, err
	}
	if n := len(l.plugins); n > 0 && equalJSON(l.plugins[n-1], want) && l.count() == 1 {
		return false, nil
	}
	l.remove()
	l.plugins = append(l.plugins, want)
	return true, nil
}

func (l *list) count() int {
	n := 0
	for _, p := range l.plugins {
		if isOurs(p) {
			n++
		}
	}
	return n
}

// remove takes our entry out and tells whether there was one.
func (l *list) remove() bool {
	var kept []json.RawMessage
	for _, p := range l.plugins {
		if !isOurs(p) {
			kept = append(kept, p)
		}
	}
	removed := len(kept) < len(l.plugins)
	l.plugins = kept
	return removed
}

func isOurs(raw json.RawMessage) bool {
	var p struct {
		Type string `json:"type"`
	}
	return json.Unmarshal(raw, &p) == nil && p.Type == names.CNIPlugin
}

// content is the list as a file.
func (l *list) content() ([]byte, error) {
	plugins, err := marshal(l.plugins)
	if err != nil {
		return nil, err
	}
	l.fields["plugins"] = plugins
	compact, err := marshal(l.fields)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	if err := json.Indent(&out, compact, "", "  "); err != nil {
		return nil, err
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}

// marshal leaves characters such as & as they are, unlike json.Marshal.
func marshal(v any) ([]byte, error) {
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	if err := e.Encode(v); err != nil {
		return nil, err
	}
	return bytes.TrimSpace(out.Bytes()), nil
}

func equalJSON(a, b []byte) bool {
	var x, y bytes.Buffer
	return json.Compact(&x, a) == nil && json.Compact(&y, b) == nil && bytes.Equal(x.Bytes(), y.Bytes())
}
