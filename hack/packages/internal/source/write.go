// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package source

import (
	"os"
	"path/filepath"
)

// Write puts files into a folder, by name. The folders in stale, of the same one, have generated files alone: what an
// earlier version wrote there under another name must not stay.
func Write(dir string, files map[string][]byte, stale ...string) error {
	for _, s := range stale {
		if err := os.RemoveAll(filepath.Join(dir, s)); err != nil {
			return err
		}
	}
	for name, content := range files {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(file, content, 0o644); err != nil {
			return err
		}
	}
	return nil
}
