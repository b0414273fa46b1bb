// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package main

import (
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestAResetOfAKeptConnectionIsAFailure, though Go's client asks again and gets an answer.
func TestAResetOfAKeptConnectionIsAFailure(t *testing.T) {
	var asked atomic.Int32
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) != 2 {
			return
		}
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		_ = c.(*net.TCPConn).SetLinger(0)
		_ = c.Close()
	}))
	defer s.Close()
	a := newAsker(&loadOptions{http: s.Listener.Addr().String(), timeout: 10 * time.Second}, false)
	defer a.close()
	for n, fails := range []bool{false, true, false} {
		if err := a.unit(t.Context(), &waits{}); (err != nil) != fails {
			t.Errorf("unit %d: %v", n, err)
		}
	}
}

// hung is a listener of whose connections each makes its third answer wait.
type hung struct {
	net.Listener
	time time.Duration
}

func (l hung) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	return &hungConn{Conn: c, time: l.time}, err
}

type hungConn struct {
	net.Conn
	time  time.Duration
	wrote int
}

func (c *hungConn) Write(p []byte) (int, error) {
	if c.wrote++; c.wrote == 3 {
		<-time.After(c.time)
	}
	return c.Conn.Write(p)
}

// TestWhatHangsForAWhileIsTold, of each kind, though all of it comes in the end.
func TestWhatHangsForAWhileIsTold(t *testing.T) {
	const hang = 200 * time.Millisecond
	listen := func() hung {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		return hung{l, hang}
	}
	handler, err := (&server{name: "web"}).handler()
	if err != nil {
		t.Fatal(err)
	}
	web, tcp := listen(), listen()
	s := httptest.NewUnstartedServer(handler)
	_ = s.Listener.Close()
	s.Listener, s.Config.Protocols = web, &http.Protocols{}
	s.Config.Protocols.SetHTTP1(true)
	s.Config.Protocols.SetUnencryptedHTTP2(true)
	s.Start()
	defer s.Close()
	go func() { _ = mirror(t.Context(), tcp) }()
	o := &loadOptions{
		http: web.Addr().String(), tcp: tcp.Addr().String(), stream: 5 * messageEvery, timeout: 10 * time.Second,
	}
	for _, kind := range loadKinds {
		if kind.name == "new" {
			continue // has but one answer of a connection
		}
		t.Run(kind.name, func(t *testing.T) {
			w := kind.make(o)
			defer w.close()
			var waited waits
			for n := range 4 {
				if err := w.unit(t.Context(), &waited); err != nil {
					t.Errorf("unit %d: %v", n, err)
				}
			}
			if waited.longest < hang {
				t.Errorf("it waited %s", waited.longest)
			}
		})
	}
}
