// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package netns

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Sysctl sets a parameter of the namespace, by its path below /proc/sys, and returns what it was.
func (n *Namespace) Sysctl(name, value string) (was string, err error) {
	err = n.Do(func() error {
		// Runtimes mount /proc/sys read-only in containers. A proc file system of one's own, mounted nowhere, is not; which
		// of the namespaces' parameters it shows depends on the thread that asks.
		proc, err := ownProc()
		if err != nil {
			return err
		}
		defer func() { _ = proc.Close() }()
		path := "sys/" + name
		fd, err := unix.Openat(int(proc.Fd()), path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			return &os.PathError{Op: "open", Path: path, Err: err}
		}
		file := os.NewFile(uintptr(fd), path)
		defer func() { _ = file.Close() }()
		var text [64]byte
		have, err := file.ReadAt(text[:], 0)
		if have == 0 {
			return err
		}
		was = strings.TrimSpace(string(text[:have]))
		if was == value {
			return nil
		}
		_, err = file.WriteAt([]byte(value+"\n"), 0)
		return err
	})
	if err != nil {
		return "", fmt.Errorf("set %s in %s: %w", name, n.path, err)
	}
	return was, nil
}

func ownProc() (*os.File, error) {
	config, err := unix.Fsopen("proc", unix.FSOPEN_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("fsopen: %w", err)
	}
	defer func() { _ = unix.Close(config) }()
	if err := unix.FsconfigCreate(config); err != nil {
		return nil, fmt.Errorf("fsconfig: %w", err)
	}
	mount, err := unix.Fsmount(config, unix.FSMOUNT_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("fsmount: %w", err)
	}
	return os.NewFile(uintptr(mount), "proc"), nil
}
