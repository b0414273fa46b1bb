// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package netns finds and holds the network namespaces of pods: by path, by asking the container runtime for the path,
// and by doing something inside one. It knows nothing of what is done there.
package netns

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNotNamespace is what Open says of a path that exists and is not a network namespace, as a runtime leaves behind
// after a reboot: the file is there, nothing is mounted on it.
var ErrNotNamespace = errors.New("not a network namespace")

// Gone tells whether an error means that a network namespace no longer exists.
func Gone(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrNotNamespace)
}

// List names the network namespaces that the container runtime keeps in a directory; none, if there is no such
// directory.
func List(dir string) []string {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil
	}
	var out []string
	for _, e := range entries {
		out = append(out, filepath.Join(dir, e.Name()))
	}
	return out
}

// Namespace is a network namespace held open: it lives on until Close, even when its pod is gone.
type Namespace struct {
	path string
	file *os.File
}

// Open holds the network namespace at a path. The error is fs.ErrNotExist or ErrNotNamespace where the path is gone or
// is no namespace.
func Open(path string) (*Namespace, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open network namespace: %w", err)
	}
	kind, err := unix.IoctlRetInt(int(f.Fd()), unix.NS_GET_NSTYPE)
	if err != nil || kind != unix.CLONE_NEWNET {
		_ = f.Close()
		return nil, fmt.Errorf("%s: %w", path, ErrNotNamespace)
	}
	return &Namespace{path: path, file: f}, nil
}

// Path that the namespace was opened by.
func (n *Namespace) Path() string { return n.path }

// Fd is valid until Close.
func (n *Namespace) Fd() int { return int(n.file.Fd()) }

// Close lets the namespace go.
func (n *Namespace) Close() error { return n.file.Close() }

// Do runs a function inside the namespace, on a thread of its own. Sockets and files that it opens there stay in the
// namespace; goroutines that it starts don't run there.
func (n *Namespace) Do(f func() error) error {
	done := make(chan error, 1)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine: no other goroutine can ever run in the
		// wrong namespace, whatever f did.
		runtime.LockOSThread()
		if err := unix.Setns(n.Fd(), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter network namespace %s (needs CAP_SYS_ADMIN): %w", n.path, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// Listening tells which of the TCP ports have a listener in the namespace, on any address.
func (n *Namespace) Listening(ports ...uint16) (map[uint16]bool, error) {
	found := make(map[uint16]bool, len(ports))
	err := n.Do(func() error {
		// IPv6 may be switched off in the kernel, then its file is missing.
		for _, name := range []string{"tcp", "tcp6"} {
			f, err := os.Open("/proc/thread-self/net/" + name)
			if errors.Is(err, os.ErrNotExist) {
				continue
			}
			if err != nil {
				return err
			}
			err = listening(f, found)
			_ = f.Close()
			if err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("read the listening sockets of %s: %w", n.path, err)
	}
	out := make(map[uint16]bool, len(ports))
	for _, p := range ports {
		out[p] = found[p]
	}
	return out, nil
}

// stateListen is TCP_LISTEN as /proc/net/tcp prints it.
const stateListen = "0A"

// listening collects the ports of listening sockets of /proc/net/tcp. The kernel prints them before all others, so a
// pod with very many connections costs no more than one without.
func listening(r io.Reader, found map[uint16]bool) error {
	s := bufio.NewScanner(r)
	s.Scan() // the header
	for s.Scan() {
		f := strings.Fields(s.Text())
		if len(f) < 4 {
			return fmt.Errorf("unexpected line %q", s.Text())
		}
		if f[3] != stateListen {
			return nil
		}
		_, port, ok := strings.Cut(f[1], ":")
		n, err := strconv.ParseUint(port, 16, 16)
		if !ok || err != nil {
			return fmt.Errorf("unexpected address %q", f[1])
		}
		found[uint16(n)] = true
	}
	return s.Err()
}
