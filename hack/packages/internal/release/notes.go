// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package release

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// kinds of changes, in the order of the notes.
var kinds = []struct{ name, title string }{
	{"breaking", "Breaking changes"},
	{"security", "Security"},
	{"feature", "Features"},
	{"fix", "Fixes"},
	{"performance", "Performance"},
}

// Notes joins the fragments of a folder into the notes of a release.
func Notes(dir, version string) ([]byte, error) {
	files, err := filepath.Glob(filepath.Join(dir, "*.md")) // in order
	if err != nil {
		return nil, err
	}
	items := map[string][]string{}
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			return nil, err
		}
		kind, text, err := fragment(string(b))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		items[kind] = append(items[kind], text)
	}
	var out strings.Builder
	out.WriteString("# Fairway " + version + "\n")
	for _, k := range kinds {
		if len(items[k.name]) == 0 {
			continue
		}
		out.WriteString("\n## " + k.title + "\n\n")
		for _, text := range items[k.name] {
			// Further lines and paragraphs belong to the item.
			lines := strings.Split(text, "\n")
			for n, l := range lines {
				switch {
				case n == 0:
					lines[n] = "- " + l
				case l != "":
					lines[n] = "  " + l
				}
			}
			out.WriteString(strings.Join(lines, "\n") + "\n")
		}
	}
	return []byte(out.String()), nil
}

// fragment parts what a fragment says of itself from its text.
func fragment(s string) (kind, text string, err error) {
	head, text, ok := strings.Cut(strings.TrimPrefix(s, "---\n"), "\n---\n")
	kind, is := strings.CutPrefix(head, "kind: ")
	if !strings.HasPrefix(s, "---\n") || !ok || !is {
		return "", "", fmt.Errorf(`must begin with "---", "kind: KIND", "---", a line each (changelogs/README.md)`)
	}
	text = strings.TrimSpace(text)
	if text == "" {
		return "", "", fmt.Errorf("says nothing")
	}
	for _, k := range kinds {
		if k.name == kind {
			return kind, text, nil
		}
	}
	return "", "", fmt.Errorf("kind %q is none of those in changelogs/README.md", kind)
}
