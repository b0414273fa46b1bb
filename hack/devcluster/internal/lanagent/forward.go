// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package lanagent

import (
	"context"
	"errors"
	"io"
	"log"
	"net"
	"runtime"
	"time"

	vnetns "github.com/vishvananda/netns"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

// dialTimeout bounds a connection attempt inside the lan.
const dialTimeout = 10 * time.Second

// dialInLan connects from the lan's network namespace. A socket belongs to the namespace of the thread that makes it;
// from then on it can be used anywhere.
func dialInLan(ctx context.Context, network, address string) (net.Conn, error) {
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		h, err := vnetns.GetFromName(topology.LanNetns)
		if err == nil {
			defer h.Close()
			err = vnetns.Set(h)
		}
		if err != nil {
			done <- result{err: err}
			return
		}
		c, err := (&net.Dialer{Timeout: dialTimeout}).DialContext(ctx, network, address)
		done <- result{c, err}
	}()
	r := <-done
	return r.conn, r.err
}

// forward splices every connection that l accepts to the API server.
func forward(ctx context.Context, l net.Listener) error {
	context.AfterFunc(ctx, func() { _ = l.Close() })
	for {
		c, err := l.Accept()
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err != nil {
			log.Printf("forwarder: accepting: %v", err)
			time.Sleep(50 * time.Millisecond) // out of file descriptors, most likely
			continue
		}
		go splice(ctx, c)
	}
}

func splice(ctx context.Context, outer net.Conn) {
	defer outer.Close()
	inner, err := dialInLan(ctx, "tcp", topology.APIAddress())
	if err != nil {
		return // while the API server starts; the client sees its connection close and tries again
	}
	defer inner.Close()
	done := make(chan struct{}, 2)
	pipe := func(to, from net.Conn) {
		_, err := io.Copy(to, from)
		if half, ok := to.(*net.TCPConn); ok && (err == nil || errors.Is(err, io.EOF)) {
			_ = half.CloseWrite()
		} else {
			_ = to.Close()
		}
		done <- struct{}{}
	}
	go pipe(inner, outer)
	go pipe(outer, inner)
	<-done
	<-done
}
