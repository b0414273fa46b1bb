// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"context"
	"fmt"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/utils/clock"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/relay"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
)

// behindAgent has the proxy started anew, with an agent's relay between it and the operator.
func (n *meshNode) behindAgent(maxEndpoints, maxAddresses int) *relay.Relay {
	return n.behindAgentAt(clock.RealClock{}, maxEndpoints, maxAddresses)
}

// behindAgentAt does so with an agent that goes by another clock.
func (n *meshNode) behindAgentAt(at clock.PassiveClock, maxEndpoints, maxAddresses int) *relay.Relay {
	t := n.mesh.t
	operator := "unix:" + n.socket
	n.proxy.stop()
	r, err := relay.New(relay.Options{
		Dial: func() (*grpc.ClientConn, error) {
			return grpc.NewClient(operator, grpc.WithTransportCredentials(insecure.NewCredentials()))
		},
		NodeID: n.name, MaxEndpoints: maxEndpoints, MaxOnDemand: maxAddresses, Clock: at,
	})
	require.NoError(t, err)
	n.socket = filepath.Join(t.TempDir(), "agent.sock")
	l, err := relay.Listen(n.socket)
	require.NoError(t, err)
	ctx, stop := context.WithCancel(context.Background())
	g := errgroup.Group{}
	g.Go(func() error { return r.Serve(ctx, l) })
	g.Go(func() error { return r.Run(ctx) })
	t.Cleanup(func() {
		stop()
		require.NoError(t, g.Wait())
	})
	n.proxy = startProxy(t, n)
	return r
}

// largeService has a VIP and endpoints in plain text.
func (m *mesh) largeService(n int, endpoints []netip.AddrPort) netip.AddrPort {
	vip := netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 96, byte(1 + n>>8), byte(n)}), 80)
	list := make([]model.Endpoint, len(endpoints))
	for i, at := range endpoints {
		list[i] = model.Endpoint{Address: at, Zone: fmt.Sprint("zone-", i%3)}
	}
	port := model.ServicePort{Namespace: "default", Service: fmt.Sprint("large-", n), Port: 80}
	m.endpoints(port, list...)
	m.destination(model.Destination{Address: vip, Kind: model.DestinationService, Port: port})
	return vip
}

// hasEndpoints waits until the proxy has so many of a service.
func (p *proxy) hasEndpoints(t *testing.T, service, want int) {
	t.Helper()
	eventually.NoError(t, fmt.Sprintf("%d endpoints of large-%d", want, service), func() error {
		assignment := names.NodeEndpoints("default", fmt.Sprint("large-", service), 80, false)
		have, err := p.ask("/stats?filter=" + assignment + ".membership_healthy")
		if err == nil && have != fmt.Sprintf("cluster.%s.membership_healthy: %d\n", assignment, want) {
			err = fmt.Errorf("wanted %d endpoints, have %q", want, have)
		}
		return err
	})
}

// TestLargeServicesDontFillTheProxy has a pod dial many addresses of Services with many endpoints: what they cost is
// bounded. Another pod reaches another large Service all the same, and all its endpoints once it is known who wants
// most.
func TestLargeServicesDontFillTheProxy(t *testing.T) {
	const many, each, room, most = 150, 1000, 5000, 256 << 10
	m := newMesh(t)
	n := m.nodes[0]
	agent := n.behindAgent(room, 0)
	hog, modest := n.newMember("hog", false), n.newMember("modest", false)
	nobody := make([]netip.AddrPort, each)
	for i := range nobody {
		nobody[i] = netip.AddrPortFrom(m.nodes[1].addr, uint16(20000+i))
	}
	before := n.proxy.allocated()
	g := errgroup.Group{}
	for i := range many {
		vip := m.largeService(i, nobody).String()
		g.Go(func() error {
			if have, err := hog.hello(vip); err == nil {
				return fmt.Errorf("nobody answers %q", have)
			}
			return nil
		})
	}
	require.NoError(t, g.Wait())
	eventually.NoError(t, "an address costs little", func() error {
		if have := (n.proxy.allocated() - before) / many; have > most {
			return fmt.Errorf("an address costs %d bytes", have)
		}
		return nil
	})
	require.True(t, agent.Short())

	server := m.nodes[1].newPod("server")
	var served []netip.AddrPort
	for port := range uint16(100) {
		server.greet(8000 + port)
		served = append(served, server.at(8000+port))
	}
	vip := m.largeService(many, served).String()
	for range 20 {
		_, err := modest.hello(vip)
		require.NoError(t, err)
	}
	n.proxy.hasEndpoints(t, many, 8)
	agent.Prefer([][]string{dialled(t, hog), dialled(t, modest)})
	n.proxy.hasEndpoints(t, many, len(served))
	_, err := modest.hello(vip)
	require.NoError(t, err)
}

// dialled is what the kernel noted of a pod.
func dialled(t *testing.T, p *pod) []string {
	t.Helper()
	list, err := capture.Dialled(p.ns)
	require.NoError(t, err)
	var out []string
	for _, d := range list {
		out = append(out, d.To.String())
	}
	return out
}

// TestConnectionsOutliveTheirEndpoint: where a proxy gives endpoints back, open connections to them go on, as they do
// at endpoints that drain.
func TestConnectionsOutliveTheirEndpoint(t *testing.T) {
	const endpoints, connections = 40, 40
	m := newMesh(t)
	n := m.nodes[0]
	agent := n.behindAgent(endpoints, 0)
	client, other := n.newMember("client", false), n.newMember("other", false)
	server := m.nodes[1].newPod("server")
	var served []netip.AddrPort
	for port := range uint16(endpoints) {
		server.greet(8000 + port)
		served = append(served, server.at(8000+port))
	}
	vip, others := m.largeService(0, served).String(), m.largeService(1, served).String()
	var open []*session
	for range connections {
		open = append(open, client.session(vip))
	}
	n.proxy.hasEndpoints(t, 0, endpoints)
	requireHello(t, other, others, "server sees "+other.addr.String())
	n.proxy.hasEndpoints(t, 1, 16)
	agent.Prefer([][]string{{others}})
	n.proxy.hasEndpoints(t, 1, endpoints)
	n.proxy.hasEndpoints(t, 0, 16)
	for _, s := range open {
		s.alive()
	}
	requireHello(t, client, vip, "server sees "+client.addr.String())
}

// TestAddressesAreSharedOut: greedy pods that use up the addresses that a proxy may hold leave another what it needs,
// and none of their connections ends for that. They get back what is free again.
func TestAddressesAreSharedOut(t *testing.T) {
	const most, greed, need = 30, 14, 4
	m := newMesh(t)
	n := m.nodes[0]
	agent := n.behindAgent(1000, most)
	server := m.nodes[1].newPod("server")
	address := func(i int) string { return server.at(uint16(8000 + i)).String() }
	for i := range 2*greed + 2*need {
		server.greet(uint16(8000 + i))
		m.destination(model.Destination{Address: addrPort(address(i)), Kind: model.DestinationPassthrough})
	}
	pods := []*pod{n.newMember("greedy", false), n.newMember("greedier", false), n.newMember("modest", false)}
	sharing(t, agent, func() {
		if agent.Short() {
			var all [][]string
			for _, p := range pods {
				all = append(all, dialled(t, p))
			}
			agent.Prefer(all)
		}
	})

	var open []*session
	for p, pod := range pods[:2] {
		for i := range greed {
			open = append(open, pod.session(address(p*greed+i)))
		}
	}
	for i := range 2 * need {
		requireHello(t, pods[2], address(2*greed+i), "server sees "+pods[2].addr.String())
	}
	for _, s := range open {
		s.alive()
	}
	for i := range 2 * need {
		requireHello(t, pods[2], address(2*greed+i), "server sees "+pods[2].addr.String())
	}
}

// sharing looks again and again until the test ends, as the agent does.
func sharing(t *testing.T, agent *relay.Relay, look func()) {
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(100 * time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-agent.Asks():
			case <-tick.C:
			}
			look()
		}
	}()
	t.Cleanup(func() { stop(); <-done })
}
