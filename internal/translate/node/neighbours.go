// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	netstatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/set_filter_state/v3"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
	"github.com/fairway-mesh/fairway/internal/translate/upstream"
)

// Two captured pods of one node have the same proxy. Where nothing else decides about a connection between them, it
// passes the proxy once: the proxy connects to the application from the network namespace of its pod, with the caller's
// address as source, as it does at the end of mTLS. Which addresses lead to which pod is said by one filter of all
// outbound listeners of the node (names.Neighbours, by ECDS). Where it says nothing, a connection goes as any other.

// Way is an address that captured pods dial, and the neighbours that it leads to, each as often as the others.
type Way struct {
	// Dialled is the name of the address's cluster.
	Dialled string
	To      []Neighbour
}

// Neighbour is an application of a captured pod.
type Neighbour struct {
	Pod *Pod
	// At is its address: one of the pod's, and a port.
	At netip.AddrPort
}

// MostWays is how many addresses can lead to neighbours: each pod's listener reads the filter anew when it changes.
const MostWays = 128

// mostText is how long an expression is at most. Envoy's parser takes 100,000 characters, and refuses the whole filter
// else.
const mostText = 99_000

// prefixNeighbours begins the names of clusters by which pods connect to neighbours.
const prefixNeighbours = names.Neighbours + "/"

// NeighboursCluster names the cluster by which the pod with a UID connects to neighbours.
func NeighboursCluster(uid string) string { return prefixNeighbours + uid }

// ToNeighbours is the cluster by which a pod connects to neighbours: in plain, to the address and from the network
// namespace in the filter state, with the pod's own address as source.
func ToNeighbours(p Pod, mark proxymark.Mark) *clusterv3.Cluster {
	return upstream.DirectAs(NeighboursCluster(p.UID), names.Neighbours, sources(p.IPs), socketOptions(mark))
}

// sources are the pod's first addresses of each family.
func sources(ips []netip.Addr) (out []netip.Addr) {
	for _, f := range families(ips) {
		out = append(out, ofFamily(ips, f))
	}
	return out
}

// Neighbours is the filter that says where callers get to neighbours. Of other pods it says nothing. Ways that lead to
// many are left out first where it would be too large, so that nobody's Service can take it away from all others.
func Neighbours(callers []Pod, ways []Way) *netstatev3.Config {
	ways = slices.SortedFunc(slices.Values(ways), func(a, b Way) int {
		return cmp.Or(cmp.Compare(len(a.To), len(b.To)), cmp.Compare(a.Dialled, b.Dialled))
	})
	for ways = ways[:min(len(ways), MostWays)]; len(ways) > 0; ways = ways[:len(ways)*3/4] {
		filter := filterOf(callers, ways)
		if !slices.ContainsFunc(filter.GetOnNewConnection(), func(v *statev3.FilterStateValue) bool {
			return len(v.GetFormatString().GetTextFormatSource().GetInlineString()) > mostText
		}) {
			return filter
		}
	}
	return &netstatev3.Config{}
}

func filterOf(callers []Pod, ways []Way) *netstatev3.Config {
	var to []choice
	pods := map[string]*Pod{}
	for _, w := range ways {
		to = append(to, choice{w.Dialled, w.pick()})
		for _, n := range w.To {
			pods[n.At.String()] = n.Pod
		}
	}
	ofPod := func(value func(p *Pod) string) string {
		var list []choice
		for at, p := range pods {
			list = append(list, choice{at, quoted(value(p))})
		}
		return celOf(neighbour + " == b'' ? '' : " + choose(neighbour, bytes, list))
	}
	return &netstatev3.Config{OnNewConnection: []*statev3.FilterStateValue{
		text(names.FilterStateNeighbour, celOf(isOneOf(callers)+" ? 'may' : ''")),
		text(names.FilterStateNeighbour, celOf(neighbour+" == b'' ? '' : "+choose("destination.address", quoted, to))),
		unlessEmpty(text(names.FilterStatePod, ofPod(func(p *Pod) string { return p.Namespace + "/" + p.Name }))),
		unlessEmpty(text(names.FilterStateDestination, ofPod(func(p *Pod) string { return p.Identity }))),
		unlessEmpty(envoy.FilterState(envoy.FilterStateNetns, envoy.FactoryHashableString,
			ofPod(func(p *Pod) string { return p.Netns }), envoy.SharedOnce)),
	}}
}

// pick is the address of one of the neighbours, by the connection's turn. A pod doesn't get to itself this way: the
// connection would have the same addresses as the one that was captured.
func (w Way) pick() string {
	slices.SortFunc(w.To, func(a, b Neighbour) int { return a.At.Compare(b.At) })
	out := ""
	for n, to := range w.To {
		if own := caller + " == " + quoted(to.Pod.caller()); n == 0 {
			out = own
		} else {
			out += " || " + own
		}
	}
	return out + " ? '' : " + w.byTurn(0, len(w.To))
}

// byTurn picks among the neighbours from one to before another, by halves: Envoy's parser doesn't follow an expression
// in another deeper than 32.
func (w Way) byTurn(from, to int) string {
	if to-from == 1 {
		return quoted(w.To[from].At.String())
	}
	half := (from + to) / 2
	end := fmt.Sprintf("%08x", uint64(half)<<32/uint64(len(w.To))) //nolint:gosec // not negative
	return fmt.Sprintf("%s < %s ? (%s) : %s", state(names.FilterStateTurn), bytes(end), w.byTurn(from, half),
		w.byTurn(half, to))
}

// fromNeighbours is what the outbound listener of a pod has of neighbours: filter state before the filter that says
// where they are, and that filter with what carries it out.
func fromNeighbours(p Pod) (before []*statev3.FilterStateValue, behind []*listenerv3.Filter) {
	if !p.Neighbours {
		return nil, nil
	}
	ifAny := func(value string) string { return celOf(neighbour + " == b'' ? '' : " + value) }
	before = []*statev3.FilterStateValue{
		text(names.FilterStateSource, envoy.Literal(p.Identity)),
		text(names.FilterStateTurn, "%UNIQUE_ID%"),
		text(names.FilterStateNeighbour, celOf("''")),
	}
	return before, []*listenerv3.Filter{
		envoy.NetworkFilterByECDSOr(names.Neighbours, &netstatev3.Config{}, 0),
		envoy.SetFilterState(
			unlessEmpty(envoy.FilterState(envoy.FilterStateCluster, "", ifAny(quoted(NeighboursCluster(p.UID))),
				envoy.SharedNot)),
			unlessEmpty(envoy.FilterState(envoy.FilterStateOriginalDst, "", ifAny(neighbour), envoy.SharedNot)),
		),
	}
}

// caller is what the filter knows a pod by that connects: the name of the filter chain of its outbound listener. It is
// as short as it may be, for each listener of the node holds those of all its pods, and none is a part of another.
func (p Pod) caller() string {
	sum := sha256.Sum256([]byte(p.Namespace + "/" + p.Name + "/" + p.UID))
	return hex.EncodeToString(sum[:callerBytes])
}

// callerBytes of a hash of what no pod chooses alone, its UID.
const callerBytes = 8

// caller is the caller in an expression: text, unlike filter state, so that one literal can have all that may be.
const caller = "xds.filter_chain_name"

// isOneOf tells in an expression whether the caller is one of these pods.
func isOneOf(pods []Pod) string {
	all := make([]string, len(pods))
	for n, p := range pods {
		all[n] = p.caller()
	}
	slices.Sort(all)
	return quoted(strings.Join(all, " ")) + ".contains(" + caller + ")"
}

// neighbour is the filter state of that name in an expression.
var neighbour = state(names.FilterStateNeighbour)

// state is filter state in an expression: bytes, not text.
func state(key string) string { return "filter_state[" + quoted(key) + "]" }

// bytes are text as what filter state is compared with.
func bytes(s string) string {
	out := []byte("b'")
	for _, c := range []byte(s) {
		if c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || strings.IndexByte("-./:", c) >= 0 {
			out = append(out, c)
		} else {
			out = fmt.Appendf(out, `\x%02x`, c)
		}
	}
	return string(append(out, '\''))
}

func text(key, format string) *statev3.FilterStateValue {
	return envoy.FilterState(key, envoy.FactoryString, format, envoy.SharedNot)
}

func unlessEmpty(v *statev3.FilterStateValue) *statev3.FilterStateValue {
	v.SkipIfEmpty = true
	return v
}

func celOf(expression string) string { return "%CEL(" + expression + ")%" }

// quoted is a literal of an expression: names, addresses, identities and paths, which have no character that it could
// end with.
func quoted(s string) string { return envoy.CELText(s) }

// choice is what an expression gives for one value of what it is asked about.
type choice struct{ of, gives string }

// choose is an expression that finds the choice for a value in as many steps as there are bits in their number; else it
// is empty.
func choose(value string, literal func(string) string, among []choice) string {
	slices.SortFunc(among, func(a, b choice) int { return cmp.Compare(a.of, b.of) })
	switch half := len(among) / 2; {
	case len(among) == 0:
		return "''"
	case half == 0:
		return value + " == " + literal(among[0].of) + " ? (" + among[0].gives + ") : ''"
	default:
		return value + " < " + literal(among[half].of) + " ? (" + choose(value, literal, among[:half]) + ") : (" +
			choose(value, literal, among[half:]) + ")"
	}
}
