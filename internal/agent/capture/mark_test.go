// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/names"
)

// says serves a port of a namespace with one word.
func says(t *testing.T, ns *netns.Namespace, address, word string) {
	t.Helper()
	netnstest.Serve(t, ns, address, func(c net.Conn) { _, _ = io.WriteString(c, word) })
}

// ask who answers a process of the pod that sets options of SOL_SOCKET.
func ask(ns *netns.Namespace, to string, options map[int]uint32) (word string, err error) {
	err = ns.Do(func() error {
		if err := netnstest.OnlyRaw(); err != nil {
			return err
		}
		word, err = hear(net.Dialer{Control: func(_, _ string, c syscall.RawConn) error {
			var set error
			err := c.Control(func(fd uintptr) {
				for name, value := range options {
					set = errors.Join(set, unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, name, int(value)))
				}
			})
			return errors.Join(err, set)
		}}, to)
		return err
	})
	return word, err
}

// hear all that a server says.
func hear(d net.Dialer, to string) (string, error) {
	d.Timeout = 5 * time.Second
	c, err := d.Dial("tcp", to)
	if err != nil {
		return "", err
	}
	defer c.Close()
	b, err := io.ReadAll(c)
	return string(b), err
}

// proxied are the options of the proxy itself.
func proxied() map[int]uint32 {
	return map[int]uint32{unix.SO_MARK: testMark.Mark(), unix.SO_PRIORITY: testMark.Priority()}
}

// podAndPeer are a pod and what is around it, where a server is at every address of the pod's ranges.
func podAndPeer(t *testing.T) (pod, peer *netns.Namespace) {
	pod, peer = netnstest.Linked(t,
		[]string{"10.244.0.3/24", "fd00:244::3/64"}, []string{"10.244.0.1/24", "fd00:244::1/64"})
	says(t, peer, ":80", "the peer")
	says(t, pod, fmt.Sprintf(":%d", names.PortOutbound), "the proxy")
	says(t, pod, ":8080", "the application")
	return pod, peer
}

// TestNobodyPassesForTheProxy has a process with CAP_NET_RAW that sets what it likes.
func TestNobodyPassesForTheProxy(t *testing.T) {
	pod, _ := podAndPeer(t)
	require.NoError(t, Apply(pod, testPod))
	for _, to := range []string{"10.244.0.1:80", "[fd00:244::1]:80"} {
		for name, options := range map[string]map[int]uint32{
			"nothing":                        {},
			"the mark of earlier versions":   {unix.SO_MARK: names.MarkProxy},
			"half of the secret":             {unix.SO_MARK: testMark.Mark()},
			"the other half":                 {unix.SO_PRIORITY: testMark.Priority()},
			"half, and nearly the other one": {unix.SO_MARK: testMark.Mark(), unix.SO_PRIORITY: testMark.Priority() ^ 1},
		} {
			word, err := ask(pod, to, options)
			require.NoError(t, err, "%s: %s", to, name)
			require.Equal(t, "the proxy", word, "%s: %s", to, name)
		}
		word, err := ask(pod, to, map[int]uint32{unix.SO_MARK: names.MarkReply})
		require.Error(t, err, "%s: what has the mark of answers stays in the pod: %s", to, word)
		word, err = ask(pod, to, proxied())
		require.NoError(t, err, to)
		require.Equal(t, "the peer", word, "%s: the proxy itself", to)
	}
}

// TestNobodySeesTheMark has a process with CAP_NET_RAW that looks at all packets of the pod and asks the kernel for
// their marks.
func TestNobodySeesTheMark(t *testing.T) {
	for name, prepare := range map[string]func(*netns.Namespace) error{
		"before the pod is captured": func(ns *netns.Namespace) error { return Prepare(ns, testMark) },
		"captured":                   func(ns *netns.Namespace) error { return Apply(ns, testPod) },
		"let go": func(ns *netns.Namespace) error {
			return errors.Join(Apply(ns, testPod), Drain(ns, testMark))
		},
	} {
		t.Run(name, func(t *testing.T) {
			pod, _ := podAndPeer(t)
			require.NoError(t, prepare(pod))
			seen := netnstest.Watch(t, pod)
			ports := map[uint16]bool{80: true, 8080: true}
			for _, to := range []string{"10.244.0.1:80", "[fd00:244::1]:80", "127.0.0.1:8080", "10.244.0.3:8080"} {
				_, err := ask(pod, to, proxied())
				require.NoError(t, err, to)
			}
			for _, p := range seen() {
				require.Contains(t, []uint32{0, names.MarkReply}, p.Mark, "port %d", p.Destination)
				require.Zero(t, p.Priority, "port %d", p.Destination)
				delete(ports, p.Destination)
			}
			require.Empty(t, ports, "packets to them were seen")
		})
	}
}

// TestRootSeesNoMark reads what /proc shows of the pod's connections to root without a capability.
func TestRootSeesNoMark(t *testing.T) {
	pod, _ := podAndPeer(t)
	require.NoError(t, Apply(pod, testPod))
	_, err := ask(pod, names.ApplicationAddress+":8080", proxied())
	require.NoError(t, err)
	var text string
	require.NoError(t, pod.Do(func() error {
		b, err := os.ReadFile("/proc/thread-self/net/nf_conntrack")
		text = string(b)
		if errors.Is(err, fs.ErrNotExist) {
			err = nil
		}
		return err
	}))
	if text == "" {
		t.Skip("skipped: the kernel shows no connections in /proc (CONFIG_NF_CONNTRACK_PROCFS)")
	}
	require.Contains(t, text, fmt.Sprintf("mark=%d ", names.MarkAnswered))
	require.NotContains(t, text, fmt.Sprintf("mark=%d ", testMark.Mark()))
}

// TestWhatRedirects: an agent that starts must tell a pod that it captured from one that it only got ready.
func TestWhatRedirects(t *testing.T) {
	pod := netnstest.New(t, "pod")
	for _, step := range []struct {
		do   func() error
		want bool
	}{
		{func() error { return nil }, false},
		{func() error { return Prepare(pod, testMark) }, false},
		{func() error { return Apply(pod, testPod) }, true},
		{func() error { return Drain(pod, testMark) }, false},
		{func() error { return Remove(pod) }, false},
	} {
		require.NoError(t, step.do())
		have, err := Redirects(pod)
		require.NoError(t, err)
		require.Equal(t, step.want, have)
	}
}

// A Mark is never left out: without one, everybody would pass for the proxy.
func TestNoRulesWithoutAMark(t *testing.T) {
	pod := netnstest.New(t, "pod")
	require.ErrorContains(t, Apply(pod, Pod{}), "mark")
	require.Empty(t, list(t, pod))
}
