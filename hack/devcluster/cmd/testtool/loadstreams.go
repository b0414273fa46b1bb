// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"math/rand/v2"
	"net"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// messageEvery is how often a stream sends.
const messageEvery = 20 * time.Millisecond

// streamer keeps a connection of gRPC and has one stream after the other on it.
type streamer struct {
	conn   *grpc.ClientConn
	err    error
	stream time.Duration
}

func newStreamer(o *loadOptions) *streamer {
	conn, err := grpc.NewClient("passthrough:///"+o.http, grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.ForceCodecV2(bytesCodec{}), grpc.WaitForReady(false)))
	return &streamer{conn: conn, err: err, stream: o.stream}
}

func (s *streamer) unit(ctx context.Context, w *waits) error {
	if s.err != nil {
		return s.err
	}
	stream, err := s.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true, ClientStreams: true}, methodEcho)
	if err != nil {
		return err
	}
	tick := time.NewTicker(messageEvery)
	defer tick.Stop()
	for end := time.Now().Add(s.stream); time.Now().Before(end); <-tick.C {
		if err := w.of(func() error { return exchange(stream) }); err != nil {
			return fmt.Errorf("stream: %w", err)
		}
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	if err := w.of(func() error { return stream.RecvMsg(new([]byte)) }); !errors.Is(err, io.EOF) {
		return fmt.Errorf("stream: its end: %w", err)
	}
	return nil
}

// exchange sends a message, which must come back.
func exchange(stream grpc.ClientStream) error {
	sent := random(64)
	if err := stream.SendMsg(&sent); err != nil {
		return errors.Join(stream.RecvMsg(new([]byte)), err)
	}
	var got []byte
	if err := stream.RecvMsg(&got); err != nil {
		return err
	}
	if !bytes.Equal(sent, got) {
		return errors.New("another message came back")
	}
	return nil
}

func (s *streamer) close() {
	if s.conn != nil {
		_ = s.conn.Close()
	}
}

// sender sends random bytes for a while, and wants them back, then the server's end.
type sender struct{ *loadOptions }

func (s sender) close() {}

func (s sender) unit(ctx context.Context, w *waits) error {
	var c net.Conn
	err := w.of(func() (err error) {
		c, err = (&net.Dialer{}).DialContext(ctx, "tcp", s.tcp)
		return err
	})
	if err != nil {
		return err
	}
	defer c.Close()
	if until, ok := ctx.Deadline(); ok {
		_ = c.SetDeadline(until)
	}
	sum := crc32.NewIEEE()
	total := 0
	var g errgroup.Group
	g.Go(func() error {
		tick := time.NewTicker(messageEvery)
		defer tick.Stop()
		for end := time.Now().Add(s.stream); time.Now().Before(end); <-tick.C {
			part := random(4 << 10)
			sum.Write(part)
			total += len(part)
			if _, err := c.Write(part); err != nil {
				return err
			}
		}
		return c.(*net.TCPConn).CloseWrite()
	})
	back := crc32.NewIEEE()
	n, err := io.Copy(back, waitingReader{c, w})
	if err := errors.Join(err, g.Wait()); err != nil {
		return err
	}
	if int(n) != total || back.Sum32() != sum.Sum32() {
		return fmt.Errorf("tcp: of what was sent not the same came back, or not all (cut: %t)", int(n) < total)
	}
	return nil
}

// waitingReader counts how long each read waits.
type waitingReader struct {
	io.Reader
	waits *waits
}

func (r waitingReader) Read(p []byte) (n int, err error) {
	err = r.waits.of(func() (err error) {
		n, err = r.Reader.Read(p)
		return err
	})
	return n, err
}

func random(n int) []byte {
	out := make([]byte, n)
	for i := range out {
		out[i] = byte(rand.Uint32())
	}
	return out
}

func tcpMirror() *cobra.Command {
	var port int
	cmd := &cobra.Command{
		Use: "tcp-mirror", Short: "TCP server that sends back what it gets, and ends when its client does",
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l, err := net.Listen("tcp", fmt.Sprintf(":%d", port))
			if err != nil {
				return err
			}
			return mirror(cmd.Context(), l)
		},
	}
	cmd.Flags().IntVar(&port, "port", 9000, "port to listen on")
	return cmd
}

// mirror serves until the context ends, and then those that are connected for drainTime.
func mirror(ctx context.Context, l net.Listener) error {
	context.AfterFunc(ctx, func() { _ = l.Close() })
	var open errgroup.Group
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			return err
		}
		open.Go(func() error {
			defer c.Close()
			_, _ = io.Copy(c, c)
			return nil
		})
	}
	done := make(chan struct{})
	go func() {
		_ = open.Wait()
		close(done)
	}()
	select {
	case <-done:
	case <-time.After(drainTime):
	}
	return nil
}
