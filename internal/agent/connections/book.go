// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"net/netip"
	"time"
	"unique"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
)

const (
	// mostOfPod is how many connections in mTLS the proxy lets a pod have, and mostInAll bounds what is kept of all.
	mostOfPod = 16_384
	mostInAll = 262_144
	// forgotten is after how long one that is told of no more has ended: its end wasn't told.
	forgotten = 3 * envoy.RetellEvery
	// uncertain is for how long after the proxy has taken a guard its threads may let in by the one before, and how far
	// the proxy's clock may be behind.
	uncertain = 10 * time.Second
)

// opened is a connection in mTLS that has led to an application.
type opened struct {
	capture.Proxied
	identity, asked unique.Handle[string]
	// told is when the proxy told of it last.
	told time.Time
}

// podOf is what is known of a pod, by namespace and name.
type podOf struct {
	guard *guard
	// byCaller has its connections by their callers' addresses.
	byCaller map[netip.AddrPort]opened
	// fresh are those of them that came by a guard before the present one, and weren't asked about since.
	fresh map[netip.AddrPort]struct{}
	// changed: the guard is another than when connections were asked about last. again is when they are asked about once
	// more.
	changed bool
	again   time.Time
}

// guard is what the proxy has accepted for a pod.
type guard struct {
	version string
	packed  *anypb.Any
	// since is when it was accepted.
	since time.Time
}

// Told takes in a line of the proxy's about a connection in mTLS.
func (k *Keeper) Told(line *accesslogdatav3.AccessLogCommon) {
	pod := envoy.StateText(line, names.FilterStatePod)
	caller, ok := leg(line.GetDownstreamLocalAddress(), line.GetDownstreamDirectRemoteAddress())
	if pod == "" || !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	if line.GetAccessLogType() == accesslogdatav3.AccessLogType_TcpConnectionEnd {
		k.gone(pod, caller.Remote)
		return
	}
	if line.GetFilterStateObjects()[names.FilterStateVerdict] == nil ||
		envoy.StateText(line, names.FilterStateVerdict) != "" {
		return // it is refused, or not decided
	}
	p := k.pod(pod)
	if _, known := p.byCaller[caller.Remote]; !known {
		if len(p.byCaller) >= mostOfPod || k.open >= mostInAll {
			k.noRoom++
			return
		}
		k.open++
	}
	application, _ := leg(line.GetUpstreamLocalAddress(), line.GetUpstreamRemoteAddress())
	p.byCaller[caller.Remote] = opened{
		Proxied: capture.Proxied{Caller: caller, Application: application}, told: k.now(),
		identity: unique.Make(envoy.PeerIdentity(line)),
		asked:    unique.Make(line.GetTlsProperties().GetTlsSniHostname()),
	}
	if p.guard != nil && line.GetStartTime().AsTime().Before(p.guard.since.Add(uncertain)) {
		p.fresh[caller.Remote] = struct{}{}
		k.wake.Set()
	}
}

// Accepted takes in that the proxy goes by a configuration now. Of guards of pods, that is when what is open has to be
// asked about.
func (k *Keeper) Accepted(name, version string, packed *anypb.Any) {
	namespace, pod, ok := names.ParsePodAuthorization(name)
	if !ok {
		return
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	p := k.pod(namespace + "/" + pod)
	if p.guard != nil && p.guard.version == version {
		return
	}
	p.guard = &guard{version: version, packed: packed, since: k.now()}
	p.changed = true
	k.wake.Set()
}

// pod is made if need be. k.mu is held.
func (k *Keeper) pod(name string) *podOf {
	p := k.pods[name]
	if p == nil {
		p = &podOf{byCaller: map[netip.AddrPort]opened{}, fresh: map[netip.AddrPort]struct{}{}}
		k.pods[name] = p
	}
	return p
}

// gone forgets a connection. k.mu is held.
func (k *Keeper) gone(pod string, caller netip.AddrPort) {
	p := k.pods[pod]
	if p == nil {
		return
	}
	delete(p.fresh, caller)
	if _, known := p.byCaller[caller]; known {
		delete(p.byCaller, caller)
		k.open--
	}
}

// forget what has ended without a word, and pods that are gone.
func (k *Keeper) forget(places Places) {
	k.mu.Lock()
	defer k.mu.Unlock()
	now := k.now()
	for name, p := range k.pods {
		for caller, o := range p.byCaller {
			if now.Sub(o.told) > forgotten {
				k.gone(name, caller)
			}
		}
		if len(p.byCaller) == 0 && !p.changed && len(places.Netns(name)) == 0 {
			delete(k.pods, name)
		}
	}
}

func leg(local, remote *corev3.Address) (l capture.Leg, ok bool) {
	if l.Local, ok = addrPort(local); !ok {
		return capture.Leg{}, false
	}
	if l.Remote, ok = addrPort(remote); !ok {
		return capture.Leg{}, false
	}
	return l, true
}

func addrPort(a *corev3.Address) (netip.AddrPort, bool) {
	s := a.GetSocketAddress()
	addr, err := netip.ParseAddr(s.GetAddress())
	if err != nil || s.GetPortValue() > 1<<16-1 {
		return netip.AddrPort{}, false
	}
	return netip.AddrPortFrom(addr.Unmap().WithZone(""), uint16(s.GetPortValue())), true //nolint:gosec // compared
}
