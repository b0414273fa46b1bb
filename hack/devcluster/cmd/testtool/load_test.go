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
		if err := a.unit(t.Context()); (err != nil) != fails {
			t.Errorf("unit %d: %v", n, err)
		}
	}
}
