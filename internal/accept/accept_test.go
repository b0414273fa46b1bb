// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package accept

import (
	"io"
	"net"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// TestAnAddressHasItsShare: one address can't take what others need, and has its share back when its connections end.
func TestAnAddressHasItsShare(t *testing.T) {
	inner, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	l := Limit(inner, 100, 2)
	t.Cleanup(func() { _ = l.Close() })
	accepted := make(chan net.Conn, 100)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	dial := func(from string) net.Conn {
		c, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(from)}}).Dial("tcp", l.Addr().String())
		require.NoError(t, err)
		t.Cleanup(func() { _ = c.Close() })
		require.NoError(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
		return c
	}
	requireClosed := func(c net.Conn) {
		t.Helper()
		_, err := c.Read(make([]byte, 1))
		require.ErrorIs(t, err, io.EOF)
	}
	dial("127.0.0.2")
	dial("127.0.0.2")
	first, second := <-accepted, <-accepted
	for range 50 {
		requireClosed(dial("127.0.0.2"))
	}
	dial("127.0.0.3")
	<-accepted
	require.NoError(t, first.Close())
	_ = first.Close() // counts once
	dial("127.0.0.2")
	third := <-accepted
	requireClosed(dial("127.0.0.2"))
	require.NoError(t, second.Close())
	require.NoError(t, third.Close())
}
