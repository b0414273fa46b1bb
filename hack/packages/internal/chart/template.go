// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package chart

import (
	"fmt"
	"regexp"
	"strconv"
	"strings"

	"sigs.k8s.io/yaml"

	"github.com/fairway-mesh/fairway/hack/packages/internal/source"
)

// templated is an object in which marks stand for pieces of a template until it is text.
type templated struct {
	object source.Object
	pieces []string
	err    error
}

// mark stands for a piece of a template. As a key it is the last of its map: a list's item doesn't begin with it.
func (t *templated) mark(piece string) string {
	t.pieces = append(t.pieces, piece)
	return fmt.Sprintf("zz-mark-%d-", len(t.pieces)-1)
}

// set puts a value at path; what leads there is made.
func (t *templated) set(v any, path ...string) {
	if m := t.parent(path); m != nil {
		m[path[len(path)-1]] = v
	}
}

// replace puts a piece of a template in place of the value at path, which must be there.
func (t *templated) replace(piece string, path ...string) {
	m := t.parent(path)
	if m == nil {
		return
	}
	last := path[len(path)-1]
	if _, ok := m[last]; !ok && t.err == nil {
		t.err = fmt.Errorf("config/default has nothing at %s for a value to change", strings.Join(path, "."))
	}
	m[last] = t.mark(piece)
}

// block adds lines of a template to the map at path.
func (t *templated) block(piece string, path ...string) {
	if m := t.parent(append(path, "")); m != nil {
		m[t.mark(piece)] = ""
	}
}

// parent of the last of path. A number is an index of a list.
func (t *templated) parent(path []string) map[string]any {
	var at any = map[string]any(t.object)
	for n, p := range path[:len(path)-1] {
		switch v := at.(type) {
		case map[string]any:
			if _, ok := v[p]; !ok {
				v[p] = map[string]any{}
			}
			at = v[p]
		case []any:
			i, err := strconv.Atoi(p)
			if err != nil || i >= len(v) {
				at = nil
				break
			}
			at = v[i]
		default:
			at = nil
		}
		if at == nil {
			t.err = fmt.Errorf("config/default has no %s", strings.Join(path[:n+1], "."))
			return nil
		}
	}
	m, ok := at.(map[string]any)
	if !ok && t.err == nil {
		t.err = fmt.Errorf("config/default has no map at %s", strings.Join(path[:len(path)-1], "."))
	}
	return m
}

var (
	markedLine  = regexp.MustCompile(`(?m)^( *)zz-mark-(\d+)-: ""$`)
	markedValue = regexp.MustCompile(`zz-mark-(\d+)-`)
)

// text of the template. Braces of the object itself are no template.
func (t *templated) text() (string, error) {
	if t.err != nil {
		return "", t.err
	}
	b, err := yaml.Marshal(t.object)
	if err != nil {
		return "", err
	}
	text := strings.ReplaceAll(string(b), "{{", `{{ "{{" }}`)
	piece := func(n string) string {
		i, err := strconv.Atoi(n)
		if err != nil || i >= len(t.pieces) {
			return ""
		}
		return t.pieces[i]
	}
	text = markedLine.ReplaceAllStringFunc(text, func(line string) string {
		m := markedLine.FindStringSubmatch(line)
		// Actions start their lines, so that the text shows which lines are YAML's.
		lines := strings.Split(piece(m[2]), "\n")
		for n, l := range lines {
			if !strings.HasPrefix(l, "{{-") {
				lines[n] = m[1] + l
			}
		}
		return strings.Join(lines, "\n")
	})
	return markedValue.ReplaceAllStringFunc(text, func(mark string) string {
		return piece(markedValue.FindStringSubmatch(mark)[1])
	}), nil
}
