// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cni

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/google/renameio/v2"

	"github.com/fairway-mesh/fairway/internal/agent/cni/plugin"
)

// Names below the configuration directory. A directory is what runtimes don't take for a configuration, and unlike
// /run it survives a reboot.
const (
	ownDir     = "fairway.d"
	recordFile = "install.json"
	stateFile  = "namespaces.json"
)

// errNoNetwork means that the node has no CNI configuration yet to chain behind.
var errNoNetwork = errors.New("no CNI configuration yet; the cluster's network plugin must be installed first")

// Installer puts the plugin on the node and takes it away again. All its writes are atomic: a runtime that reads
// meanwhile finds the old file or the new one.
type Installer struct {
	// Source is the plugin binary, as the agent's image has it.
	Source string
	// BinDir and ConfDir are the node's CNI directories as the agent sees them.
	BinDir, ConfDir string
	// Entry of the configuration list. Its paths are the host's.
	Entry Entry
}

// StateFile is the path of the file that names the enrolled namespaces, for a configuration directory.
func StateFile(confDir string) string { return filepath.Join(confDir, ownDir, stateFile) }

// record remembers what was there before, so that it can be restored byte for byte.
type record struct {
	// Original file name and content.
	Original string      `json:"original"`
	Content  []byte      `json:"content"`
	Mode     os.FileMode `json:"mode"`
	// Written is the file name that our list has, and SHA256 the hash of its content.
	Written string `json:"written"`
	SHA256  string `json:"sha256"`
}

// install makes sure that the plugin is in place and last in the list that the runtime uses. It tells whether it
// changed anything. The error is ErrNoNetwork while there is no list.
func (i *Installer) install() (changed bool, err error) {
	binary, err := i.installBinary()
	if err != nil {
		return false, err
	}
	conf, err := i.installEntry()
	return binary || conf, err
}

// Uninstall restores the configuration and removes all that Install made.
func (i *Installer) Uninstall() error {
	// The entry goes first: a list that names a missing plugin stops every pod of the node.
	if err := i.uninstallEntry(); err != nil {
		return err
	}
	if err := os.RemoveAll(filepath.Join(i.ConfDir, ownDir)); err != nil {
		return fmt.Errorf("remove our files beside the CNI configuration: %w", err)
	}
	if err := os.Remove(i.binary()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the CNI plugin: %w", err)
	}
	return nil
}

func (i *Installer) binary() string { return filepath.Join(i.BinDir, i.Entry.Type) }

func (i *Installer) installBinary() (bool, error) {
	want, err := os.ReadFile(i.Source)
	if err != nil {
		return false, fmt.Errorf("read the CNI plugin of the image: %w", err)
	}
	const executable = 0o755
	have, err := os.ReadFile(i.binary())
	if err == nil && bytes.Equal(have, want) {
		if st, err := os.Stat(i.binary()); err == nil && st.Mode().Perm() == executable {
			return false, nil
		}
	}
	if err := writeAtomic(i.binary(), want, executable); err != nil {
		return false, fmt.Errorf("install the CNI plugin: %w", err)
	}
	return true, nil
}

// active is the name of the file that the runtime uses: the first in lexical order, as libcni and containerd say.
func (i *Installer) active() (string, error) {
	entries, err := os.ReadDir(i.ConfDir)
	if err != nil {
		return "", fmt.Errorf("read the CNI configuration directory: %w", err)
	}
	var files []string
	for _, e := range entries {
		if !e.IsDir() && slices.Contains([]string{".conf", ".conflist", ".json"}, filepath.Ext(e.Name())) {
			files = append(files, e.Name())
		}
	}
	if len(files) == 0 {
		return "", errNoNetwork
	}
	return slices.Min(files), nil
}

func (i *Installer) installEntry() (bool, error) {
	name, err := i.active()
	if err != nil {
		return false, err
	}
	path := filepath.Join(i.ConfDir, name)
	content, err := os.ReadFile(path)
	if err != nil {
		return false, fmt.Errorf("read the CNI configuration: %w", err)
	}
	st, err := os.Stat(path)
	if err != nil {
		return false, err
	}
	written, parse := name, parseList
	if filepath.Ext(name) != ".conflist" {
		written, parse = strings.TrimSuffix(name, filepath.Ext(name))+".conflist", parseSingle
	}
	l, err := parse(content)
	if err != nil {
		return false, fmt.Errorf("%s: %w", path, err)
	}
	had := l.count() > 0
	changed, err := l.set(i.Entry)
	if err != nil || !changed {
		return false, err
	}
	out, err := l.content()
	if err != nil {
		return false, err
	}
	r := record{Original: name, Content: content, Mode: st.Mode().Perm(), Written: written, SHA256: digest(out)}
	if had {
		// An older entry of ours is replaced. The original stays what it was before that one, if nobody changed the
		// file since; else it is unknown, and removal takes the entry out of what is there.
		r = record{Written: written, Mode: st.Mode().Perm()}
		if old, err := i.readRecord(); err == nil && old.Written == name && old.SHA256 == digest(content) {
			old.SHA256 = digest(out)
			r = old
		}
	}
	// The record is there before the list: whatever is interrupted can be undone.
	if err := i.writeRecord(r); err != nil {
		return false, err
	}
	if err := writeAtomic(filepath.Join(i.ConfDir, written), out, st.Mode().Perm()); err != nil {
		return false, fmt.Errorf("write the CNI configuration: %w", err)
	}
	if written != name {
		// x.conf sorts before x.conflist and would win.
		if err := os.Remove(path); err != nil {
			return false, fmt.Errorf("replace the CNI configuration %s by a list: %w", name, err)
		}
	}
	return true, nil
}

func (i *Installer) uninstallEntry() error {
	r, err := i.readRecord()
	known := err == nil
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	entries, err := os.ReadDir(i.ConfDir)
	if err != nil {
		return fmt.Errorf("read the CNI configuration directory: %w", err)
	}
	var failed []error
	for _, e := range entries {
		if e.IsDir() || filepath.Ext(e.Name()) != ".conflist" {
			continue
		}
		path := filepath.Join(i.ConfDir, e.Name())
		content, err := os.ReadFile(path)
		if err != nil {
			failed = append(failed, err)
			continue
		}
		if known && e.Name() == r.Written && r.SHA256 == digest(content) {
			failed = append(failed, i.restore(r))
			continue
		}
		failed = append(failed, removeEntry(path, content))
	}
	return errors.Join(failed...)
}

// restore puts the original back.
func (i *Installer) restore(r record) error {
	if err := writeAtomic(filepath.Join(i.ConfDir, r.Original), r.Content, r.Mode); err != nil {
		return fmt.Errorf("restore the CNI configuration: %w", err)
	}
	if r.Written == r.Original {
		return nil
	}
	return os.Remove(filepath.Join(i.ConfDir, r.Written))
}

// removeEntry takes our entry out of a list that others changed since.
func removeEntry(path string, content []byte) error {
	l, err := parseList(content)
	if err != nil || !l.remove() {
		return nil //nolint:nilerr // what we can't read has no entry of ours
	}
	if len(l.plugins) == 0 {
		return os.Remove(path)
	}
	out, err := l.content()
	if err != nil {
		return err
	}
	st, err := os.Stat(path)
	if err != nil {
		return err
	}
	return writeAtomic(path, out, st.Mode().Perm())
}

func (i *Installer) readRecord() (record, error) {
	var r record
	b, err := os.ReadFile(filepath.Join(i.ConfDir, ownDir, recordFile))
	if err != nil {
		return r, err
	}
	if err := json.Unmarshal(b, &r); err != nil {
		return r, fmt.Errorf("record of the CNI installation: %w", err)
	}
	return r, nil
}

func (i *Installer) writeRecord(r record) error {
	b, err := json.Marshal(r)
	if err != nil {
		return err
	}
	if err := writeAtomic(filepath.Join(i.ConfDir, ownDir, recordFile), b, 0o600); err != nil {
		return fmt.Errorf("record the CNI installation: %w", err)
	}
	return nil
}

// WriteState tells the plugin which namespaces are enrolled. It tells whether that is news.
func WriteState(path string, enrolled []string) (bool, error) {
	enrolled = slices.Sorted(slices.Values(enrolled))
	if have, err := plugin.ReadState(path); err == nil && slices.Equal(have.Enrolled, enrolled) {
		return false, nil
	}
	if enrolled == nil {
		enrolled = []string{}
	}
	b, err := json.Marshal(plugin.State{Enrolled: enrolled})
	if err != nil {
		return false, err
	}
	if err := writeAtomic(path, append(b, '\n'), 0o644); err != nil {
		return false, fmt.Errorf("write the enrolled namespaces for the CNI plugin: %w", err)
	}
	return true, nil
}

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}

// writeAtomic replaces a file; the directory is made if need be. The temporary name, which is hidden, has no extension
// that a runtime reads.
func writeAtomic(path string, content []byte, mode os.FileMode) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return err
	}
	return renameio.WriteFile(path, content, mode, renameio.WithStaticPermissions(mode))
}
