// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

//go:build linux

package main

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net/netip"
	"runtime"
	"sync"
	"time"

	vnetns "github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
)

// wire reads every IPv4 packet that comes in on any interface of the nodes' network namespaces: the nodes' own and the
// host ends of their pods'. It keeps TCP segments with a payload between addresses of interest.
type wire struct {
	interest map[netip.Addr]bool
	stop     chan struct{}
	readers  sync.WaitGroup

	mu       sync.Mutex
	segments []segment
	err      error
}

type segment struct {
	from, to netip.AddrPort
	payload  []byte
}

// maxSegments bounds what is kept.
const maxSegments = 10000

// nodeNetns precedes a node's name in that of its network namespace (hack/devcluster/internal/topology).
const nodeNetns = "fairway-"

// listen starts reading in the network namespaces of nodes.
func listen(nodes []string, interest []netip.Addr) (*wire, error) {
	w := &wire{interest: map[netip.Addr]bool{}, stop: make(chan struct{})}
	for _, a := range interest {
		w.interest[a] = true
	}
	for _, name := range nodes {
		fd, err := packetSocket(nodeNetns + name)
		if err != nil {
			_ = w.close()
			return nil, fmt.Errorf("capture in %s: %w", name, err)
		}
		w.readers.Add(1)
		go w.read(fd)
	}
	return w, nil
}

// packetSocket opens a socket (packet(7)) that gets what every interface of a network namespace receives. A socket
// stays in the namespace it was made in.
func packetSocket(namespace string) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	home, err := vnetns.Get()
	if err != nil {
		return -1, err
	}
	defer func() { _ = home.Close() }()
	there, err := vnetns.GetFromName(namespace)
	if err != nil {
		return -1, err
	}
	defer func() { _ = there.Close() }()
	if err := vnetns.Set(there); err != nil {
		return -1, err
	}
	defer func() {
		if err := vnetns.Set(home); err != nil {
			panic(fmt.Sprintf("a thread is lost in network namespace %s: %v", namespace, err))
		}
	}()
	// In network byte order, as the kernel wants it.
	proto := binary.NativeEndian.Uint16([]byte{unix.ETH_P_IP >> 8, unix.ETH_P_IP & 0xff})
	fd, err := unix.Socket(unix.AF_PACKET, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, int(proto))
	if err != nil {
		return -1, err
	}
	// The reader looks this often whether it is to stop.
	if err := unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Usec: 50_000}); err != nil {
		return -1, errors.Join(err, unix.Close(fd))
	}
	return fd, nil
}

func (w *wire) read(fd int) {
	defer w.readers.Done()
	defer func() { _ = unix.Close(fd) }()
	buf := make([]byte, 1<<16)
	for {
		n, _, err := unix.Recvfrom(fd, buf, 0)
		switch {
		case err == nil:
			w.keep(buf[:n])
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			w.mu.Lock()
			w.err = err
			w.mu.Unlock()
			return
		default:
			select { // nothing more came
			case <-w.stop:
				return
			default:
			}
		}
	}
}

func (w *wire) keep(packet []byte) {
	s, ok := parse(packet)
	if !ok || len(s.payload) == 0 || !w.interest[s.from.Addr()] || !w.interest[s.to.Addr()] {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.segments) < maxSegments {
		w.segments = append(w.segments, s)
	}
}

// parse takes an IPv4 packet with TCP in it apart (RFC 791, RFC 9293).
func parse(p []byte) (segment, bool) {
	if len(p) < 20 || p[0]>>4 != 4 || p[9] != unix.IPPROTO_TCP {
		return segment{}, false
	}
	header, total := int(p[0]&0xf)*4, int(binary.BigEndian.Uint16(p[2:]))
	if header < 20 || total > len(p) || total < header+20 {
		return segment{}, false
	}
	tcp := p[header:total]
	offset := int(tcp[12]>>4) * 4
	if offset < 20 || offset > len(tcp) {
		return segment{}, false
	}
	return segment{
		from:    netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[12:16])), binary.BigEndian.Uint16(tcp)),
		to:      netip.AddrPortFrom(netip.AddrFrom4([4]byte(p[16:20])), binary.BigEndian.Uint16(tcp[2:])),
		payload: append([]byte(nil), tcp[offset:]...),
	}, true
}

// settle is how long packets that are under way may take.
const settle = 100 * time.Millisecond

// end stops reading and returns what was kept.
func (w *wire) end() ([]segment, error) {
	time.Sleep(settle)
	err := w.close()
	return w.segments, err
}

func (w *wire) close() error {
	close(w.stop)
	w.readers.Wait()
	return w.err
}

// tlsRecord tells whether a payload begins with the header of a TLS record (RFC 8446, section 5.1) of a plausible
// length.
func tlsRecord(p []byte) bool {
	return len(p) >= 5 && p[0] >= 20 && p[0] <= 23 && p[1] == 3 && p[2] <= 4 && binary.BigEndian.Uint16(p[3:]) <= 1<<14+256
}
