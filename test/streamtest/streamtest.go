// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

// Package streamtest has what the tests of node proxies and those of waypoints send over connections, and expect of
// their ends.
package streamtest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"

	"golang.org/x/sync/errgroup"
)

// Random are the first bytes of an endless stream that is always the same.
func Random(size int) io.Reader { return io.LimitReader(rand.NewChaCha8([32]byte{}), int64(size)) }

// Sums reads to the end and returns how much there was, with its checksum.
func Sums(r io.Reader) (int64, [sha256.Size]byte, error) {
	h := sha256.New()
	n, err := io.Copy(h, r)
	return n, [sha256.Size]byte(h.Sum(nil)), err
}

// HalfCloser is an end of a connection.
type HalfCloser interface {
	net.Conn
	CloseWrite() error
}

// WholeEnd has one side send size bytes and close its own side. The other talks meanwhile, reads as it reads, talks
// again and closes last. All that either side sends must arrive.
func WholeEnd(closer, reader HalfCloser, size int, reads func(io.Reader) io.Reader) error {
	const talk = 1000
	_, want, _ := Sums(Random(size))
	var g errgroup.Group
	g.Go(func() error {
		if _, err := io.Copy(closer, Random(size)); err != nil {
			return fmt.Errorf("send: %w", err)
		}
		return closer.CloseWrite()
	})
	g.Go(func() error {
		n, err := io.Copy(io.Discard, closer)
		if err == nil && n != talk {
			err = fmt.Errorf("%d bytes of %d arrive at the side that closed first", n, talk)
		}
		return err
	})
	g.Go(func() error {
		for range talk / 2 {
			if _, err := reader.Write([]byte{0}); err != nil {
				return fmt.Errorf("talk: %w", err)
			}
		}
		n, have, err := Sums(reads(reader))
		if err != nil || have != want {
			return fmt.Errorf("%d bytes of %d arrive: %w", n, size, err)
		}
		if _, err := reader.Write(make([]byte, talk/2)); err != nil {
			return fmt.Errorf("talk after the end: %w", err)
		}
		return reader.CloseWrite()
	})
	return g.Wait()
}

// ClientHello is all that a client of TLS says before the server has answered.
func ClientHello(ctx context.Context, serverName string) (string, error) {
	client, server := net.Pipe()
	defer server.Close()
	go func() {
		_ = tls.Client(client, &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS13}).HandshakeContext(ctx)
	}()
	first := make([]byte, 64<<10)
	n, err := server.Read(first)
	return string(first[:n]), err
}
