// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"cmp"
	"net/netip"
	"strconv"
	"time"
	"unique"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
)

const (
	// mostOfPod is how many connections of a pod are kept, as many as it may have in mTLS; mostInAll those of all pods.
	mostOfPod = 16_384
	mostInAll = 262_144
	// forgotten is after how long one that is told of no more has ended: its end wasn't told.
	forgotten = 3 * envoy.RetellEvery
	// uncertain is for how long after the proxy has taken a guard its threads may let in by the one before, and how far
	// the time that it says may be behind.
	uncertain = 10 * time.Second
)

// opened is a connection that has led to an application, and what it was let in by.
type opened struct {
	capture.Proxied
	caller unique.Handle[authorization.Caller]
	// began is when it came, by the proxy's clock: the next one between the same addresses and ports began later.
	began time.Time
	// told is when the proxy told of it last.
	told time.Time
	// passed is the guard that has let it live.
	passed *guard
}

// key tells the connections of a pod apart: by the caller's address and the port of the proxy that it came to, which
// are those of different listeners.
type key struct {
	remote netip.AddrPort
	port   uint16
}

func (o opened) key() key { return key{o.Caller.Remote, o.Caller.Local.Port()} }

// podOf is what is known of a pod, by namespace and name.
type podOf struct {
	guard *guard
	open  map[key]opened
	// fresh are those that came by a guard before the present one, and weren't asked about since. Some may have found no
	// room in open.
	fresh map[key]opened
	// changed: the guard is another than when all were asked about last.
	changed bool
	// again is when all are asked about again, because they couldn't be.
	again time.Time
	// nowhere: nobody knew where the pod is when it was looked last.
	nowhere bool
}

// guard is what the proxy has accepted for a pod.
type guard struct {
	version string
	packed  *anypb.Any
	// since is when it was accepted.
	since time.Time
}

// Told takes in a line of the proxy's about a connection to a pod. Each of its threads tells by itself, so what is told
// of a connection may come after what is told of the next one between the same addresses and ports: an end ends no
// later one, and nothing earlier takes the place of what is later.
func (k *Keeper) Told(line *accesslogdatav3.AccessLogCommon, plaintext bool) {
	pod := cmp.Or(k.waypoint, envoy.StateText(line, names.FilterStatePod))
	o, ok := read(line, plaintext)
	if pod == "" || !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if line.GetAccessLogType() == accesslogdatav3.AccessLogType_TcpConnectionEnd {
		k.gone(pod, o)
		return
	}
	if !letIn(line) {
		return
	}
	o.told = k.now()
	p := k.pod(pod)
	former, known := p.open[o.key()]
	if known && former.began.After(o.began) || p.fresh[o.key()].began.After(o.began) {
		return
	}
	if line.GetAccessLogType() == accesslogdatav3.AccessLogType_TcpPeriodic && former.began.Equal(o.began) {
		o.passed = former.passed
	}
	switch {
	case known:
		p.open[o.key()] = o
	case len(p.open) < k.ofPod && k.makeRoom(pod):
		p.open[o.key()] = o
		k.room.took(pod)
	default:
		k.noRoom++
	}
	unasked := p.guard != nil && o.passed != p.guard && line.GetStartTime().AsTime().Before(p.guard.since.Add(uncertain))
	if unasked && len(p.fresh) < k.ofPod {
		p.fresh[o.key()] = o
		k.wake.Set()
	}
}

// letIn tells whether a connection isn't refused, and decided about. Neighbours have no verdict: guarded pods have
// none.
func letIn(line *accesslogdatav3.AccessLogCommon) bool {
	return neighbour(line).IsValid() || line.GetFilterStateObjects()[names.FilterStateVerdict] != nil &&
		envoy.StateText(line, names.FilterStateVerdict) == ""
}

// neighbour is the application that a connection of a pod of the same node leads to.
func neighbour(line *accesslogdatav3.AccessLogCommon) netip.AddrPort {
	at, _ := netip.ParseAddrPort(envoy.StateText(line, names.FilterStateNeighbour))
	return at
}

// Accepted takes in that the proxy goes by a configuration now. If that is the guard of a pod, what is open has to be
// asked about.
func (k *Keeper) Accepted(name, version string, packed *anypb.Any) {
	whose, ok := k.guarded(name)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pod(whose)
	if p.guard != nil && p.guard.version == version {
		return
	}
	p.guard = &guard{version: version, packed: packed, since: k.now()}
	p.changed = true
	k.wake.Set()
}

// guarded is the pod that a filter guards.
func (k *Keeper) guarded(name string) (pod string, ok bool) {
	if k.waypoint != "" {
		return k.waypoint, name == names.AuthorizationTCP
	}
	namespace, pod, ok := names.ParsePodAuthorization(name)
	return namespace + "/" + pod, ok
}

// pod is made if need be. k.mu is held.
func (k *Keeper) pod(name string) *podOf {
	p := k.pods[name]
	if p == nil {
		p = &podOf{open: map[key]opened{}, fresh: map[key]opened{}}
		k.pods[name] = p
	}
	return p
}

// gone forgets a connection, and no later one in its place. k.mu is held.
func (k *Keeper) gone(pod string, o opened) {
	p := k.pods[pod]
	if p == nil {
		return
	}
	which := o.key()
	if fresh, known := p.fresh[which]; known && !fresh.began.After(o.began) {
		delete(p.fresh, which)
	}
	if open, known := p.open[which]; known && !open.began.After(o.began) {
		delete(p.open, which)
		k.room.gave(pod)
	}
}

// forget what has ended without a word, and pods that are gone.
func (k *Keeper) forget(places Places) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for name, p := range k.pods {
		for _, o := range p.open {
			if now.Sub(o.told) > forgotten {
				k.gone(name, o)
			}
		}
		was := p.nowhere
		if p.nowhere = len(places.Netns(name)) == 0; p.nowhere && was && len(p.open) == 0 {
			delete(k.pods, name)
		}
	}
}

// read a line: where the connection is in the kernel, and what its caller was asked about.
func read(line *accesslogdatav3.AccessLogCommon, plaintext bool) (o opened, ok bool) {
	if at := neighbour(line); at.IsValid() {
		return readNeighbour(line, at)
	}
	local, ok := addrPort(line.GetDownstreamLocalAddress())
	if !ok {
		return o, false
	}
	remote, ok := addrPort(line.GetDownstreamDirectRemoteAddress())
	if !ok {
		return o, false
	}
	c := authorization.Caller{
		Identity: envoy.PeerIdentity(line), ServerName: line.GetTlsProperties().GetTlsSniHostname(),
	}
	if plaintext { // the address is that which was dialled, and the socket's is where the kernel redirected it
		c = authorization.Caller{Port: local.Port()}
		local = netip.AddrPortFrom(local.Addr(), names.PortInbound)
	}
	o.Caller, o.began = capture.Leg{Local: local, Remote: remote}, line.GetStartTime().AsTime()
	if !plaintext && c.Identity == "" {
		return o, line.GetAccessLogType() == accesslogdatav3.AccessLogType_TcpConnectionEnd
	}
	o.caller = unique.Make(c)
	if a, ok := addrPort(line.GetUpstreamLocalAddress()); ok {
		if b, ok := addrPort(line.GetUpstreamRemoteAddress()); ok {
			o.Application = capture.Leg{Local: a, Remote: b}
		}
	}
	return o, true
}

// readNeighbour reads a line about a connection that the proxy has in another pod's namespace, too. In that of the
// application's pod it is one connection, with the application at one end and the proxy at the other. The
// application's end is reset first: then the proxy passes on a reset.
func readNeighbour(line *accesslogdatav3.AccessLogCommon, at netip.AddrPort) (o opened, ok bool) {
	own, ok := addrPort(line.GetUpstreamLocalAddress())
	identity := envoy.StateText(line, names.FilterStateSource)
	if !ok || identity == "" {
		return o, false
	}
	o.Caller = capture.Leg{Local: at, Remote: own}
	o.Application = capture.Leg{Local: own, Remote: at}
	o.caller = unique.Make(authorization.Caller{Identity: identity, ServerName: strconv.Itoa(int(at.Port()))})
	o.began = line.GetStartTime().AsTime()
	return o, true
}

func addrPort(a *corev3.Address) (netip.AddrPort, bool) {
	s := a.GetSocketAddress()
	addr, err := netip.ParseAddr(s.GetAddress())
	if err != nil || s.GetPortValue() > 1<<16-1 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap().WithZone(""), uint16(s.GetPortValue())), true //nolint:gosec // compared
}
