// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package connections

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	accesslogdatav3 "github.com/envoyproxy/go-control-plane/envoy/data/accesslog/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"
	"github.com/go-logr/logr"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/timestamppb"
	"google.golang.org/protobuf/types/known/wrapperspb"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/authorization"
)

const (
	web   = "shop/web-0"
	alice = "spiffe://cluster.local/ns/shop/sa/alice"
	bob   = "spiffe://cluster.local/ns/shop/sa/bob"
	came  = accesslogdatav3.AccessLogType_TcpUpstreamConnected
	still = accesslogdatav3.AccessLogType_TcpPeriodic
	ended = accesslogdatav3.AccessLogType_TcpConnectionEnd
)

// node is a kernel that writes down what is ended, of pods that are there.
type node struct {
	mu     sync.Mutex
	places map[string]string
	ended  []netip.AddrPort
	fails  error
}

func (n *node) Netns(pod string) []string {
	n.mu.Lock()
	defer n.mu.Unlock()
	if path := n.places[pod]; path != "" {
		return []string{path}
	}
	return nil
}

func (n *node) EndProxied(path string, connections []capture.Proxied) (int, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.fails != nil {
		return 0, n.fails
	}
	for _, c := range connections {
		n.ended = append(n.ended, c.Caller.Remote)
	}
	return len(connections), nil
}

// take what was ended, once it was looked.
func (n *node) take() []string {
	time.Sleep(2 * pause)
	synctest.Wait()
	n.mu.Lock()
	defer n.mu.Unlock()
	out := []string{}
	for _, a := range n.ended {
		out = append(out, a.String())
	}
	n.ended = nil
	return out
}

func (n *node) do(f func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	f()
}

// keep runs a node's keeper in fake time.
func keep(t *testing.T, test func(t *testing.T, k *Keeper, n *node)) {
	run(t, func() *Keeper { return New(logr.Discard()) }, test)
}

// run makes the keeper within the bubble, as fake time wants its channels to be.
func run(t *testing.T, create func() *Keeper, test func(t *testing.T, k *Keeper, n *node)) {
	synctest.Test(t, func(t *testing.T) {
		n, k := &node{places: map[string]string{web: "/netns/web"}}, create()
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- k.Run(ctx, n, n) }()
		defer func() {
			stop()
			require.NoError(t, <-done)
		}()
		test(t, k, n)
	})
}

// line is what a proxy tells of a connection in mTLS, that came just now.
func line(what accesslogdatav3.AccessLogType, pod, caller, from string) *accesslogdatav3.AccessLogCommon {
	state := map[string]*anypb.Any{}
	for key, value := range map[string]string{names.FilterStatePod: pod, names.FilterStateVerdict: ""} {
		state[key], _ = anypb.New(wrapperspb.String(value))
	}
	l := &accesslogdatav3.AccessLogCommon{
		AccessLogType: what, FilterStateObjects: state, StartTime: timestamppb.Now(),
		DownstreamLocalAddress: address("10.244.0.1:15008"), DownstreamDirectRemoteAddress: address(from),
		UpstreamLocalAddress: address("10.244.0.9:41000"), UpstreamRemoteAddress: address("10.244.0.1:8080"),
	}
	if caller != "" {
		l.TlsProperties = &accesslogdatav3.TLSProperties{
			TlsSniHostname: "8080",
			PeerCertificateProperties: &accesslogdatav3.TLSProperties_CertificateProperties{
				SubjectAltName: []*accesslogdatav3.TLSProperties_CertificateProperties_SubjectAltName{{
					San: &accesslogdatav3.TLSProperties_CertificateProperties_SubjectAltName_Uri{Uri: caller},
				}},
			},
		}
	}
	return l
}

func plaintext(what accesslogdatav3.AccessLogType, pod, dialled, from string) *accesslogdatav3.AccessLogCommon {
	l := line(what, pod, "", from)
	l.DownstreamLocalAddress = address(dialled)
	return l
}

func address(s string) *corev3.Address {
	a := netip.MustParseAddrPort(s)
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a.Addr().String(), PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(a.Port())},
	}}}
}

// guards has the proxy accept that only these come in.
func guards(k *Keeper, pod string, identities ...string) {
	p := model.AccessPolicy{Name: types.NamespacedName{Namespace: "shop", Name: "few"}}
	for _, id := range identities {
		p.Rules = append(p.Rules, model.AccessRule{Sources: []model.AccessSource{{Identity: id}}})
	}
	accept(k, pod, authorization.Node(model.PodGuard{Guard: model.Guard{Network: []model.AccessPolicy{p}}}))
}

func accept(k *Keeper, pod string, filter *netstatev3.Config) {
	namespace, name, _ := strings.Cut(pod, "/")
	resource := names.PodAuthorization(namespace, name)
	packed := envoy.Any(envoy.Extension(resource, filter))
	k.Accepted(resource, string(packed.GetValue()), packed)
}

// open is how many connections are kept.
func open(k *Keeper) int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.room.open
}

// TestOnlyWhoIsRefusedNow is ended, when the proxy has accepted it, and not twice.
func TestOnlyWhoIsRefusedNow(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		accept(k, web, authorization.Node(model.PodGuard{}))
		time.Sleep(time.Hour) // so that all that follows came by this guard
		k.Told(line(came, web, alice, "10.244.0.2:1000"), false)
		k.Told(line(came, web, bob, "10.244.0.3:1000"), false)
		k.Told(line(came, web, bob, "[fd00:244::3]:1000"), false)
		k.Told(plaintext(came, web, "10.244.0.1:9090", "10.244.0.3:1000"), true)
		k.Told(line(came, "shop/other", bob, "10.244.0.3:2000"), false)
		require.Empty(t, n.take())
		guards(k, web, alice, bob)
		require.Equal(t, []string{"10.244.0.3:1000"}, n.take(), "plain text")
		k.Told(plaintext(ended, web, "10.244.0.1:9090", "10.244.0.3:1000"), true)
		guards(k, web, alice)
		require.ElementsMatch(t, []string{"10.244.0.3:1000", "[fd00:244::3]:1000"}, n.take())
		k.Told(line(ended, web, bob, "10.244.0.3:1000"), false)
		k.Told(line(ended, web, bob, "[fd00:244::3]:1000"), false)
		guards(k, web, alice)
		require.Empty(t, n.take(), "the same guard")
		guards(k, web, bob, alice)
		require.Empty(t, n.take())
		guards(k, web)
		require.Equal(t, []string{"10.244.0.2:1000"}, n.take())
	})
}

// TestWhatWasUnderWay: a connection that began before the guard was accepted, or so soon after that a thread of the
// proxy may not have had it, is asked about when it is told of; one that came later isn't.
func TestWhatWasUnderWay(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		before := line(came, web, bob, "10.244.0.3:1000")
		guards(k, web, alice)
		require.Empty(t, n.take())
		k.Told(before, false)
		require.Equal(t, []string{"10.244.0.3:1000"}, n.take())
		time.Sleep(uncertain - time.Second)
		late := line(came, web, bob, "10.244.0.3:1001")
		time.Sleep(time.Minute)
		k.Told(late, false)
		require.Equal(t, []string{"10.244.0.3:1001"}, n.take())
		k.Told(line(came, web, bob, "10.244.0.3:1002"), false)
		require.Empty(t, n.take(), "Envoy has asked this guard")
	})
}

// TestWhatIsToldTooLate of a connection says nothing of the next one between the same addresses and ports: each thread
// of the proxy tells by itself, and who calls may choose its port again.
func TestWhatIsToldTooLate(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		const from = "10.244.0.3:1000"
		accept(k, web, authorization.Node(model.PodGuard{}))
		time.Sleep(time.Hour)
		whose := map[string]func(accesslogdatav3.AccessLogType, string) *accesslogdatav3.AccessLogCommon{
			"in mTLS": func(what accesslogdatav3.AccessLogType, caller string) *accesslogdatav3.AccessLogCommon {
				return line(what, web, caller, from)
			},
			"in plain text": func(what accesslogdatav3.AccessLogType, _ string) *accesslogdatav3.AccessLogCommon {
				return plaintext(what, web, "10.244.0.1:8080", from)
			},
		}
		for name, of := range whose {
			plain := name == "in plain text"
			first := of(came, alice)
			k.Told(first, plain)
			firstStill, firstEnded := of(still, alice), of(ended, alice)
			time.Sleep(time.Second)
			next := of(came, bob)
			nextEnded := of(ended, bob)
			k.Told(next, plain)
			k.Told(firstStill, plain)
			k.Told(firstEnded, plain)
			require.Equal(t, 1, open(k), name)
			guards(k, web, alice)
			require.Equal(t, []string{from}, n.take(), name)
			k.Told(nextEnded, plain)
			require.Zero(t, open(k), name)

			// The same while it waits to be asked about.
			accept(k, web, authorization.Node(model.PodGuard{}))
			require.Empty(t, n.take(), name)
			first, firstEnded = of(came, alice), of(ended, alice)
			time.Sleep(time.Second)
			next = of(came, bob)
			time.Sleep(time.Second)
			guards(k, web, alice)
			require.Empty(t, n.take(), name)
			k.Told(next, plain)
			k.Told(first, plain)
			k.Told(firstEnded, plain)
			require.Equal(t, []string{from}, n.take(), name)
			k.Told(next, plain) // it lives after all
			require.Equal(t, []string{from}, n.take(), name)
			k.Told(nextEnded, plain)
			require.Equal(t, 1, open(k), name)
			ending := of(ended, bob)
			ending.StartTime = next.GetStartTime()
			k.Told(ending, plain)
			require.Zero(t, open(k), name)
			accept(k, web, authorization.Node(model.PodGuard{}))
			require.Empty(t, n.take(), name)
			time.Sleep(time.Hour)
		}
	})
}

// TestAnAgentThatStartsAnew asks about what it is told of again, once it knows where the pod is.
func TestAnAgentThatStartsAnew(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		began := line(still, web, bob, "10.244.0.3:1000")
		n.do(func() { clear(n.places) })
		time.Sleep(time.Hour)
		guards(k, web, alice)
		k.Told(began, false)
		require.Empty(t, n.take())
		n.do(func() { n.places[web] = "/netns/web" })
		time.Sleep(retry + pause)
		require.Equal(t, []string{"10.244.0.3:1000"}, n.take())
	})
}

// TestAGuardIsAskedOnce about a connection that it lets live, however often that is told of.
func TestAGuardIsAskedOnce(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		lives, dies := line(still, web, alice, "10.244.0.2:1000"), line(still, web, bob, "10.244.0.3:1000")
		guards(k, web, alice)
		for range 3 {
			k.Told(lives, false)
			require.Empty(t, n.take())
			k.Told(dies, false) // it lives after all
			require.Equal(t, []string{"10.244.0.3:1000"}, n.take())
		}
		k.Told(lives, false)
		k.mu.Lock()
		require.Empty(t, k.pods[web].fresh)
		k.mu.Unlock()
		guards(k, web)
		require.ElementsMatch(t, []string{"10.244.0.2:1000", "10.244.0.3:1000"}, n.take())
	})
}

// TestWhatCantBeEnded is tried again.
func TestWhatCantBeEnded(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		k.Told(line(came, web, bob, "10.244.0.3:1000"), false)
		n.do(func() { n.fails = errors.New("no INET_DIAG_DESTROY") })
		guards(k, web, alice)
		require.Empty(t, n.take())
		n.do(func() { n.fails = nil })
		time.Sleep(retry + pause)
		require.Equal(t, []string{"10.244.0.3:1000"}, n.take())
		time.Sleep(retry + pause)
		require.Empty(t, n.take())
	})
}

// TestWhatIsNotKnownStaysOpen: guards of another version, lines without a caller, or of who was refused.
func TestWhatIsNotKnownStaysOpen(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		refused := line(came, web, bob, "10.244.0.3:1001")
		refused.FilterStateObjects[names.FilterStateVerdict], _ = anypb.New(wrapperspb.String("DENY a"))
		undecided := line(came, web, bob, "10.244.0.3:1002")
		delete(undecided.FilterStateObjects, names.FilterStateVerdict)
		nowhere := line(came, web, bob, "10.244.0.3:1003")
		nowhere.DownstreamDirectRemoteAddress = nil
		unproved := line(came, web, "", "10.244.0.3:1004")
		for _, l := range []*accesslogdatav3.AccessLogCommon{refused, undecided, nowhere, unproved, {}} {
			k.Told(l, false)
		}
		guards(k, web)
		require.Empty(t, n.take())
		k.Told(line(came, web, bob, "10.244.0.3:1000"), false)
		require.Equal(t, []string{"10.244.0.3:1000"}, n.take())
		for _, expression := range []string{"%CEL(peer.zone == 'a' ? '' : 'far')%", "%CEL(?)%"} {
			filter := authorization.Node(model.PodGuard{})
			filter.OnDownstreamTlsHandshake[0].GetFormatString().GetTextFormatSource().
				Specifier = &corev3.DataSource_InlineString{InlineString: expression}
			accept(k, web, filter)
			require.Empty(t, n.take(), expression)
		}
		k.Accepted("authorization/tcp", "1", envoy.Any(&netstatev3.Config{}))
		k.Accepted(names.PodAuthorization("shop", "web-0"), "x", envoy.Any(&netstatev3.Config{}))
		require.Empty(t, n.take())
	})
}

// TestWhatIsKeptIsBounded: of a pod and in all; what finds no room is asked about when it is told of again. What is
// told of no more is forgotten, and so are pods.
func TestWhatIsKeptIsBounded(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		const ofPod, inAll = 64, 256
		k.ofPod, k.inAll = ofPod, inAll
		accept(k, web, authorization.Node(model.PodGuard{}))
		time.Sleep(time.Hour)
		const more = 100
		at := func(pod, port int) string { return fmt.Sprintf("10.%d.0.3:%d", pod, port) }
		for port := range ofPod + more {
			k.Told(line(came, web, bob, at(1, port)), false)
		}
		require.EqualValues(t, ofPod, open(k))
		again := line(still, web, bob, at(1, ofPod))
		guards(k, web, alice)
		require.Len(t, n.take(), ofPod)
		k.Told(again, false)
		require.Equal(t, []string{at(1, ofPod)}, n.take())
		for pod := range 2 * inAll / ofPod {
			for port := range ofPod / 2 {
				k.Told(line(came, fmt.Sprint("shop/", pod), bob, at(pod, port)), false)
			}
		}
		require.EqualValues(t, inAll, open(k))
		time.Sleep(forgotten - envoy.RetellEvery)
		kept := len(k.pods[web].open)
		require.NotZero(t, kept)
		for port := range ofPod {
			k.Told(line(still, web, bob, at(1, port)), false)
		}
		time.Sleep(2 * envoy.RetellEvery)
		require.Equal(t, kept, open(k))
		require.Len(t, k.pods, 1)
		n.do(func() { clear(n.places) })
		time.Sleep(forgotten + 2*envoy.RetellEvery)
		require.Zero(t, open(k))
		require.Empty(t, k.pods)
	})
}

// TestNobodyTakesAllTheRoom: a namespace whose pods fill what a node can remember gives some of it up for others,
// within a namespace a pod does, and it isn't passed to and fro.
func TestNobodyTakesAllTheRoom(t *testing.T) {
	keep(t, func(t *testing.T, k *Keeper, n *node) {
		const ofPod, inAll = 64, 256
		k.ofPod, k.inAll = ofPod, inAll
		n.do(func() { n.places["small/a"] = "/netns/small" })
		tell := func(pod string, ip, ports int) {
			for port := range ports {
				k.Told(line(came, pod, bob, fmt.Sprintf("10.0.%d.3:%d", ip, port+1)), false)
			}
		}
		has := func(pod string) int {
			k.mu.Lock()
			defer k.mu.Unlock()
			return len(k.pods[pod].open)
		}
		accept(k, "small/a", authorization.Node(model.PodGuard{}))
		time.Sleep(time.Hour)
		for pod := range inAll / ofPod {
			tell(fmt.Sprint("large/", pod), pod, ofPod)
		}
		require.Equal(t, ofPod, has("large/0"), "who is alone has it all")
		tell("small/a", 100, 30)
		require.Equal(t, 30, has("small/a"))
		require.Equal(t, inAll, open(k))
		tell("small/a", 101, ofPod)
		require.Equal(t, ofPod, has("small/a"))
		tell("large/new", 102, ofPod)
		const equal = (inAll - ofPod) / (inAll/ofPod + 1)
		for _, pod := range []string{"large/0", "large/1", "large/new"} {
			require.InDelta(t, equal, has(pod), 1, pod)
		}
		forgotten := k.noRoom
		for pod := range inAll / ofPod {
			tell(fmt.Sprint("large/", pod), pod, ofPod)
		}
		require.Equal(t, ofPod, has("small/a"))
		require.InDelta(t, equal, has("large/new"), 1)
		require.InDelta(t, ofPod+equal, k.noRoom-forgotten, 2*inAll/ofPod, "those that aren't kept, and no others for them")
		guards(k, "small/a", alice)
		require.Len(t, n.take(), ofPod, "within a second, not a minute")
	})
}

// TestAWaypointsConnections are asked about by what their callers asked for, and those to a port that is served no
// longer stay.
func TestAWaypointsConnections(t *testing.T) {
	create := func() *Keeper { return NewWaypoint(logr.Discard(), web) }
	run(t, create, func(t *testing.T, k *Keeper, n *node) {
		of := func(what accesslogdatav3.AccessLogType, caller, dialled, from string) *accesslogdatav3.AccessLogCommon {
			l := line(what, "", caller, from)
			l.TlsProperties.TlsSniHostname = dialled
			return l
		}
		db := model.TCPGuard{ServicePort: model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}}
		cache := model.TCPGuard{ServicePort: model.ServicePort{Namespace: "shop", Service: "cache", Port: 6379}}
		accepts := func(guards ...model.TCPGuard) {
			packed := envoy.Any(envoy.Extension(names.AuthorizationTCP, authorization.TCP(guards)))
			k.Accepted(names.AuthorizationTCP, string(packed.GetValue()), packed)
		}
		accepts(db, cache)
		time.Sleep(time.Hour)
		k.Told(of(came, alice, "5432.db.shop", "10.244.0.2:1000"), false)
		k.Told(of(came, bob, "5432.db.shop", "10.244.0.3:1000"), false)
		k.Told(of(came, bob, "6379.cache.shop", "10.244.0.3:1001"), false)
		guards(k, web) // of a pod, which a waypoint has nothing to do with
		require.Empty(t, n.take())
		guarded := db
		guarded.Guards = []model.Guard{{Network: []model.AccessPolicy{{
			Name:  types.NamespacedName{Namespace: "shop", Name: "few"},
			Rules: []model.AccessRule{{Sources: []model.AccessSource{{Identity: alice}}}},
		}}}}
		accepts(guarded, cache)
		require.Equal(t, []string{"10.244.0.3:1000"}, n.take())
		k.Told(of(ended, bob, "5432.db.shop", "10.244.0.3:1000"), false)
		accepts(cache)
		require.Empty(t, n.take())
		require.Equal(t, 2, open(k))
	})
}
