// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"bytes"
	"fmt"
	"net"
	"net/netip"
	"sync"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/eventually"
)

// record captures all that passes the link between the nodes from now on. The result returns the bytes so far, all of
// them: it sends something over the link in plain and waits until it is read.
func (m *mesh) record() func() []byte {
	t := m.t
	t.Helper()
	var fd int
	require.NoError(t, m.nodes[0].ns.Do(func() error {
		var err error
		// All protocols, in network byte order. Only the uplink carries traffic between nodes.
		fd, err = unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, 0x0300)
		return err
	}))
	var mu sync.Mutex
	var all []byte
	done := make(chan struct{})
	require.NoError(t, unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}))
	stop := make(chan struct{})
	go func() {
		defer close(done)
		buf := make([]byte, 1<<16)
		for {
			n, from, err := unix.Recvfrom(fd, buf, 0)
			select {
			case <-stop:
				return
			default:
			}
			if err != nil || !m.onUplink(from) {
				continue
			}
			mu.Lock()
			all = append(all, buf[:n]...)
			mu.Unlock()
		}
	}()
	t.Cleanup(func() {
		close(stop)
		<-done
		_ = unix.Close(fd)
	})
	taken := func() []byte {
		mu.Lock()
		defer mu.Unlock()
		return all
	}
	return func() []byte {
		mark := fmt.Appendf(nil, "mark of the recorder at byte %d", len(taken()))
		require.NoError(t, m.nodes[0].ns.Do(func() error {
			c, err := net.Dial("udp", netip.AddrPortFrom(m.nodes[1].addr, 9).String())
			if err != nil {
				return err
			}
			defer c.Close()
			_, err = c.Write(mark)
			return err
		}))
		eventually.True(t, "the recorder reads plaintext", func() bool { return bytes.Contains(taken(), mark) })
		return taken()
	}
}

func (m *mesh) onUplink(from unix.Sockaddr) bool {
	ll, ok := from.(*unix.SockaddrLinklayer)
	return ok && ll.Ifindex == m.nodes[0].uplink
}
