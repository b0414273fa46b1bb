// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package proxymark is the mark by which the rules in pods' network namespaces know what the node's proxy sends. A
// process in a pod that has CAP_NET_RAW may set any SO_MARK and any SO_PRIORITY, so the two together are a secret of
// the node: nobody tries 2^60 of them. Both are taken off before a packet reaches what a pod can look at (see package
// capture).
package proxymark

import (
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"github.com/google/renameio/v2"

	"github.com/fairway-mesh/fairway/internal/envoy"
)

// Mark is the SO_MARK and the SO_PRIORITY of the proxy's own connections in pods' namespaces.
type Mark struct{ mark, priority uint32 }

// high is set in both halves: Envoy's configuration has signed numbers, and small ones are other programs'.
const (
	high = 1 << 30
	low  = high - 1
)

// From is the mark made of some bits, for tests and for reading it back.
func From(mark, priority uint32) Mark { return Mark{high | mark&low, high | priority&low} }

// IsZero tells whether there is no mark. Every packet would match it.
func (m Mark) IsZero() bool { return m == Mark{} }

// Mark is the half that is SO_MARK.
func (m Mark) Mark() uint32 { return m.mark }

// Priority is the half that is SO_PRIORITY.
func (m Mark) Priority() uint32 { return m.priority }

// Numbers are both halves as Envoy's configuration has them.
func (m Mark) Numbers() []string {
	return []string{strconv.FormatUint(uint64(m.mark), 10), strconv.FormatUint(uint64(m.priority), 10)}
}

// String keeps it out of logs.
func (m Mark) String() string { return "(secret)" }

// GoString keeps it out of logs.
func (m Mark) GoString() string { return m.String() }

// SocketOptions set it.
func (m Mark) SocketOptions() []*corev3.SocketOption {
	return []*corev3.SocketOption{envoy.Mark(int64(m.mark)), envoy.Priority(int64(m.priority))}
}

// Ensure reads the mark that a file holds, and makes both where there is none. One process at a time may call it.
func Ensure(path string) (Mark, error) {
	m, err := Load(path)
	if !errors.Is(err, fs.ErrNotExist) {
		return m, err
	}
	var bits [8]byte
	_, _ = rand.Read(bits[:]) // never fails
	m = From(binary.LittleEndian.Uint32(bits[:4]), binary.LittleEndian.Uint32(bits[4:]))
	if err := save(path, m); err != nil {
		return Mark{}, fmt.Errorf("keep the proxy's mark: %w", err)
	}
	return m, nil
}

// Load reads the mark that a file holds.
func Load(path string) (Mark, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return Mark{}, fmt.Errorf("read the proxy's mark: %w", err)
	}
	var m Mark
	if _, err := fmt.Sscanf(string(text), format, &m.mark, &m.priority); err != nil || m != From(m.mark, m.priority) {
		return Mark{}, fmt.Errorf("%s holds no mark: delete it, and then the pod that it belongs to", path)
	}
	return m, nil
}

const format = "%08x %08x\n"

func save(path string, m Mark) error {
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil { // others have sockets there
		return err
	}
	return renameio.WriteFile(path, fmt.Appendf(nil, format, m.mark, m.priority), 0o600)
}
