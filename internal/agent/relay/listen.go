// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package relay

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	socketDirMode = 0o755
	socketMode    = 0o666 // who may connect is decided by user ID, below
)

// Listen makes the Unix socket that Envoy connects to, in place of one that an earlier agent left. With uids,
// connections of other users are closed at once: who can talk to this socket can have the keys of the proxy.
func Listen(path string, uids ...uint32) (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(path), socketDirMode); err != nil {
		return nil, fmt.Errorf("xDS socket: %w", err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("xDS socket: %w", err)
	}
	lis, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("xDS socket: %w", err)
	}
	mode := os.FileMode(socketMode)
	if len(uids) == 0 {
		mode = 0o600
	}
	if err := os.Chmod(path, mode); err != nil {
		_ = lis.Close()
		return nil, fmt.Errorf("xDS socket: %w", err)
	}
	return &peerListener{UnixListener: lis, uids: uids}, nil
}

// peerListener accepts connections of certain users only.
type peerListener struct {
	*net.UnixListener
	uids []uint32
}

// Accept implements net.Listener.
func (l *peerListener) Accept() (net.Conn, error) {
	for {
		conn, err := l.AcceptUnix()
		if err != nil {
			return nil, err
		}
		if len(l.uids) == 0 {
			return conn, nil
		}
		if uid, err := peerUID(conn); err == nil && slices.Contains(l.uids, uid) {
			return conn, nil
		}
		_ = conn.Close()
	}
}

func peerUID(conn syscall.Conn) (uint32, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return 0, err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return 0, err
	}
	if credErr != nil {
		return 0, credErr
	}
	return cred.Uid, nil
}
