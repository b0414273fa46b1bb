// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package resets

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/go-logr/logr/testr"
	"github.com/stretchr/testify/require"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/kernel"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
)

var waypoint = types.NamespacedName{Namespace: "shop", Name: "waypoint-0"}

// askerIn asks in a network namespace, where no goroutine stays by itself.
func askerIn(ns *netns.Namespace) *Asker {
	a := NewAsker()
	transport := a.client.Transport.(*http.Transport)
	transport.DialContext = func(context.Context, string, string) (c net.Conn, err error) {
		err = ns.Do(func() (err error) { c, err = net.Dial("unix", names.ResetsSocket); return err })
		return c, err
	}
	return a
}

// connection is one to a namespace's port, as both sides have it.
type connection struct{ caller, accepted net.Conn }

// connect to a port in a namespace, from there.
func connect(t *testing.T, ns *netns.Namespace, port uint16) connection {
	t.Helper()
	c := connection{}
	require.NoError(t, ns.Do(func() error {
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			return err
		}
		defer func() { _ = l.Close() }()
		if c.caller, err = net.Dial("tcp", l.Addr().String()); err != nil {
			return err
		}
		c.accepted, err = l.Accept()
		return err
	}))
	t.Cleanup(func() { _ = c.caller.Close(); _ = c.accepted.Close() })
	return c
}

func (c connection) asked() capture.Proxied {
	of := func(a net.Addr) netip.AddrPort { return a.(*net.TCPAddr).AddrPort() }
	return capture.Proxied{Caller: capture.Leg{Local: of(c.accepted.LocalAddr()), Remote: of(c.accepted.RemoteAddr())}}
}

func (c connection) alive(t *testing.T) {
	t.Helper()
	_, err := c.caller.Write([]byte("x"))
	require.NoError(t, err)
	_, err = io.ReadFull(c.accepted, make([]byte, 1))
	require.NoError(t, err)
}

// serving has two namespaces, the first of which is a waypoint's.
func serving(t *testing.T) (s *Server, pod, other *netns.Namespace) {
	netnstest.NeedRoot(t)
	pod, other = netnstest.New(t, "waypoint"), netnstest.New(t, "other")
	s = NewServer(new(kernel.Kernel), testr.New(t))
	require.NoError(t, s.Serve(waypoint, "1", pod.Path()))
	t.Cleanup(func() { s.Drop(waypoint) })
	return s, pod, other
}

// TestAWaypointsConnectionsAreReset when it asks for that, and nobody else's, nor those to other ports.
func TestAWaypointsConnectionsAreReset(t *testing.T) {
	_, pod, other := serving(t)
	goes, stays := connect(t, pod, names.PortMTLS), connect(t, pod, names.PortMTLS)
	same, admin := connect(t, other, names.PortMTLS), connect(t, pod, 8080)
	asker := askerIn(pod)
	asked := []capture.Proxied{goes.asked(), same.asked()}
	for n := range mostAtOnce { // what is gone already
		asked = append(asked, goes.asked())
		asked[2+n].Caller.Remote = netip.AddrPortFrom(goes.asked().Caller.Remote.Addr(), uint16(1+n))
	}
	ended, err := asker.EndProxied("", asked)
	require.NoError(t, err)
	require.Equal(t, 1, ended)
	_, err = goes.caller.Read(make([]byte, 1))
	require.Error(t, err)
	_, err = asker.EndProxied("", []capture.Proxied{admin.asked()})
	require.ErrorContains(t, err, "to port 15008")
	for _, c := range []connection{stays, same, admin} {
		c.alive(t)
	}
	_, err = askerIn(other).EndProxied("", []capture.Proxied{same.asked()})
	require.Error(t, err, "it is no waypoint's")
}

// TestWhoIsServed: a pod as long as it is there, each with the network that it has.
func TestWhoIsServed(t *testing.T) {
	s, pod, other := serving(t)
	c := connect(t, pod, names.PortMTLS)
	require.True(t, s.Serves(waypoint, "1"))
	require.False(t, s.Serves(waypoint, "2"))
	require.NoError(t, s.Serve(waypoint, "2", other.Path()))
	require.True(t, s.Serves(waypoint, "2"))
	_, err := askerIn(pod).EndProxied("", []capture.Proxied{c.asked()})
	require.Error(t, err, "that was before")
	_, err = askerIn(other).EndProxied("", []capture.Proxied{c.asked()})
	require.NoError(t, err)
	s.Drop(waypoint)
	require.False(t, s.Serves(waypoint, "2"))
	_, err = askerIn(other).EndProxied("", []capture.Proxied{c.asked()})
	require.Error(t, err)
	s.Drop(waypoint)
	require.Error(t, s.Serve(waypoint, "3", "/nowhere"))
	require.False(t, s.Serves(waypoint, "3"))
	c.alive(t)
}

// TestWhatAPodMayAskFor is bounded: in what one question has, in how many there are, and in how many ask at once.
func TestWhatAPodMayAskFor(t *testing.T) {
	_, pod, _ := serving(t)
	c := connect(t, pod, names.PortMTLS)
	a := askerIn(pod)
	for _, body := range []string{
		"x", "[" + strings.Repeat("{},", mostAtOnce) + "{}]", strings.Repeat(" ", mostBytes) + "[]",
	} {
		resp, err := a.client.Post("http://node"+pathReset, "", strings.NewReader(body))
		if err != nil { // it isn't read to the end
			require.ErrorIs(t, err, syscall.EPIPE)
			continue
		}
		require.NoError(t, resp.Body.Close())
		require.Equal(t, http.StatusBadRequest, resp.StatusCode)
	}
	for range mostCallers { // who says nothing has no place for long
		require.NoError(t, pod.Do(func() error {
			silent, err := net.Dial("unix", names.ResetsSocket)
			t.Cleanup(func() { _ = silent.Close() })
			return err
		}))
	}
	began := time.Now()
	var all sync.WaitGroup
	for range atOnce + perSecond + 1 {
		all.Go(func() {
			_, _ = a.EndProxied("", []capture.Proxied{{Caller: capture.Leg{Local: c.asked().Caller.Local}}})
		})
	}
	all.Wait()
	require.Greater(t, time.Since(began), time.Second)
	eventually.True(t, "an answer", func() bool {
		ended, err := a.EndProxied("", []capture.Proxied{c.asked()})
		return err == nil && ended == 1
	})
}
