// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package authorization

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	statev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/common/set_filter_state/v3"
	"github.com/google/cel-go/cel"
	"github.com/stretchr/testify/require"
	"google.golang.org/protobuf/proto"
	"k8s.io/apimachinery/pkg/types"

	"github.com/fairway-mesh/fairway/internal/envoy"
	"github.com/fairway-mesh/fairway/internal/model"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/translate/translatetest"
)

var (
	alice = names.SPIFFEID("cluster.local", "shop", "alice")
	bob   = names.SPIFFEID("cluster.local", "shop", "bob")
	eve   = names.SPIFFEID("cluster.local", "else", "eve")
	wp    = names.SPIFFEID("cluster.local", "shop", "fairway-waypoint")
)

func policy(name string, deny bool, rules ...model.AccessRule) model.AccessPolicy {
	for n := range rules {
		rules[n].Index = n
	}
	return model.AccessPolicy{Name: types.NamespacedName{Namespace: "shop", Name: name}, Deny: deny, Rules: rules}
}

func tried(p model.AccessPolicy) model.AccessPolicy {
	p.DryRun = true
	return p
}

var cases = map[string]func() []proto.Message{
	"none": func() []proto.Message { return []proto.Message{Node(model.PodGuard{})} },
	"node": func() []proto.Message {
		return []proto.Message{Node(model.PodGuard{
			Guard: model.Guard{Network: []model.AccessPolicy{
				policy("no-eve", true, model.AccessRule{Name: "eve", Sources: []model.AccessSource{{Identity: eve}}}),
				policy("shop", false,
					model.AccessRule{Sources: []model.AccessSource{
						{Identity: names.SPIFFENamespace(alice), Prefix: true}, {Identity: eve},
					}, Ports: []uint16{80, 8080}},
					model.AccessRule{Ports: []uint16{9090}}),
				tried(policy("stricter", false, model.AccessRule{Sources: []model.AccessSource{{Identity: alice}}})),
			}},
			Only:      []uint16{7070},
			Waypoints: []model.GuardedPort{{Port: 7070, Waypoint: wp}, {Port: 8080, Waypoint: wp}},
		})}
	},
	"tcp": func() []proto.Message {
		closed := []model.Guard{{DefaultDeny: true}}
		return []proto.Message{TCP([]model.TCPGuard{
			{ServicePort: model.ServicePort{Namespace: "shop", Service: "db", Port: 5432}, Guards: []model.Guard{
				{Network: []model.AccessPolicy{
					policy("a", false, model.AccessRule{Sources: []model.AccessSource{{Identity: alice}}}),
				}},
				{DefaultDeny: true},
			}},
			{ServicePort: model.ServicePort{Namespace: "shop", Service: "queue", Port: 80}, Guards: []model.Guard{
				{Network: []model.AccessPolicy{policy("b", true, model.AccessRule{Ports: []uint16{80, 81}})}},
			}},
			{ServicePort: model.ServicePort{Namespace: "shop", Service: "a", Port: 1}, Guards: closed},
			{ServicePort: model.ServicePort{Namespace: "shop", Service: "a", Port: 2}, Guards: closed},
			{ServicePort: model.ServicePort{Namespace: "shop", Service: "open", Port: 80}},
		})}
	},
}

func TestGolden(t *testing.T) { translatetest.Golden(t, "testdata", cases, translatetest.List) }

// connection is what expressions see of one.
type connection struct {
	t     testing.TB
	seen  map[string]any
	state map[string]any
}

func newConnection(t testing.TB, seen map[string]any) *connection {
	c := &connection{t: t, seen: seen, state: map[string]any{}}
	seen["filter_state"] = c.state
	return c
}

// programs by their expressions, which many callers are asked about.
var programs = map[string]cel.Program{}

func program(t testing.TB, expression string) cel.Program {
	p, ok := programs[expression]
	if !ok {
		env, err := cel.NewEnv()
		require.NoError(t, err)
		ast, issues := env.Parse(expression) // unchecked, as Envoy has it
		require.NoError(t, issues.Err(), expression)
		p, err = env.Program(ast)
		require.NoError(t, err)
		programs[expression] = p
	}
	return p
}

// set filter state as Envoy does: bytes, and "-" for what fails.
func (c *connection) set(values []*statev3.FilterStateValue) {
	for _, v := range values {
		format := v.GetFormatString().GetTextFormatSource().GetInlineString()
		expression := strings.TrimSuffix(strings.TrimPrefix(format, "%CEL("), ")%")
		require.NotContains(c.t, expression, "%")
		require.Less(c.t, len(expression), 100_000, "more than Envoy parses")
		said := any("-")
		if result, _, err := program(c.t, expression).Eval(c.seen); err == nil {
			said = result.Value()
		}
		if s, ok := said.(string); ok {
			said = []byte(s)
		}
		c.state[v.GetObjectKey()] = said
	}
}

func (c *connection) says(key string) string {
	said, ok := c.state[key]
	if !ok {
		return "nothing"
	}
	return string(said.([]byte))
}

// toPod is how a caller comes to a pod.
func toPod(t testing.TB, c translatetest.Caller) *connection {
	if c.Identity == "" {
		return newConnection(t, map[string]any{
			"connection": map[string]any{"mtls": false}, "destination": map[string]any{"port": int64(c.Port)},
		})
	}
	return newConnection(t, map[string]any{
		"connection": map[string]any{
			"mtls": true, "uri_san_peer_certificate": c.Identity, "requested_server_name": fmt.Sprint(c.Port),
		},
		"destination": map[string]any{"port": int64(names.PortMTLS)},
	})
}

func random(seed uint64) translatetest.Guards {
	return translatetest.Guards{
		Rand: rand.New(rand.NewPCG(seed, 0)), Identities: []string{alice, bob, eve, wp},
		Ports:     []uint16{80, 8080, 9090, 15008},
		Strangers: 150,
	}
}

// TestVerdicts compares what the expressions say with what guards mean, for guards and callers at random.
func TestVerdicts(t *testing.T) {
	for seed := range uint64(150) {
		some := random(seed)
		g := some.Pod()
		filter := Node(g).GetOnDownstreamTlsHandshake()
		for range 8 {
			caller := some.Caller()
			c := toPod(t, caller)
			c.set(filter)
			verdict, dry := c.says(names.FilterStateVerdict), c.says(names.FilterStateDryRun)
			require.Equal(t, translatetest.LetIn(g, caller, false), verdict == "", "seed %d, %+v: %q", seed, caller, verdict)
			if dry != "nothing" || g.Tries() {
				require.Equal(t, translatetest.LetIn(g, caller, true), dry == "", "seed %d, %+v, dry run: %q", seed, caller, dry)
			}
			require.NotContains(t, []string{"-", undecided}, verdict)
		}
	}
}

// TestVerdictsOfTCPPorts is the same at a waypoint, and what its agent says of connections that are open.
func TestVerdictsOfTCPPorts(t *testing.T) {
	for seed := range uint64(80) {
		some := random(seed)
		var guards []model.TCPGuard
		for _, port := range some.Ports[:3] {
			at := model.TCPGuard{ServicePort: model.ServicePort{Namespace: "shop", Service: "db", Port: port}}
			for range 1 + some.Rand.IntN(3) {
				at.Guards = append(at.Guards, some.Guard())
			}
			guards = append(guards, at)
		}
		filter := TCP(guards).GetOnDownstreamTlsHandshake()
		d, err := NewTCPDecider(TCP(guards))
		require.NoError(t, err)
		for range 8 {
			caller := some.Caller()
			if caller.Identity == "" {
				continue
			}
			dialled := names.ServerName("shop", "db", caller.Port)
			c := newConnection(t, map[string]any{"connection": map[string]any{
				"mtls": true, "uri_san_peer_certificate": caller.Identity,
				"requested_server_name": dialled,
			}})
			c.set(filter)
			listed := caller.Port != some.Ports[3]
			want := listed
			for _, at := range guards {
				for _, g := range at.Guards {
					want = want && (at.Port != caller.Port || translatetest.GuardLetsIn(g, caller, false))
				}
			}
			require.Equal(t, want, c.says(names.FilterStateVerdict) == "", "seed %d, %+v", seed, caller)
			said, err := d.Verdict(Caller{Identity: caller.Identity, ServerName: dialled})
			require.NoError(t, err)
			require.Equal(t, want || !listed, said == "", "seed %d, %+v: %q", seed, caller, said)
		}
	}
}

// TestWhoRefusesIsNamed, in the order in which guards are asked.
func TestWhoRefusesIsNamed(t *testing.T) {
	of := func(id string) []model.AccessSource { return []model.AccessSource{{Identity: id}} }
	g := model.PodGuard{
		Guard: model.Guard{Network: []model.AccessPolicy{
			policy("no-eve", true, model.AccessRule{Ports: []uint16{1}}, model.AccessRule{Sources: of(eve)}),
			policy("no-bob", true, model.AccessRule{Name: "it's 100%)", Sources: of(bob)}),
			policy("friends", false, model.AccessRule{Sources: of(alice)}),
			tried(policy("closed", true, model.AccessRule{})),
		}},
		Only:      []uint16{7070},
		Waypoints: []model.GuardedPort{{Port: 7070, Waypoint: wp}},
	}
	for caller, want := range map[translatetest.Caller][2]string{
		{Identity: eve, Port: 80}:     {"DENY shop/no-eve rule 1", "DENY shop/no-eve rule 1"},
		{Identity: eve, Port: 1}:      {"DENY shop/no-eve rule 0", "DENY shop/no-eve rule 0"},
		{Identity: bob, Port: 80}:     {"DENY shop/no-bob rule it's 100%)", "DENY shop/no-bob rule it's 100%)"},
		{Identity: alice, Port: 80}:   {"", "DENY shop/closed rule 0"},
		{Identity: alice, Port: 7070}: {onlyWaypoint, onlyWaypoint},
		{Identity: wp, Port: 7070}:    {"", ""},
		{Identity: wp, Port: 80}:      {"no ALLOW policy of level Network matches", "DENY shop/closed rule 0"},
		{Port: 80}:                    {"no ALLOW policy of level Network matches", "DENY shop/closed rule 0"},
	} {
		c := toPod(t, caller)
		c.set(Node(g).GetOnDownstreamTlsHandshake())
		require.Equal(t, want, [2]string{c.says(names.FilterStateVerdict), c.says(names.FilterStateDryRun)}, "%+v", caller)
	}
}

// TestOneNumberOfAPort: a port is asked for by any text that is its number, and what is no number gets nowhere.
func TestOneNumberOfAPort(t *testing.T) {
	g := model.PodGuard{Guard: model.Guard{Network: []model.AccessPolicy{
		policy("closed", true, model.AccessRule{Ports: []uint16{8080}}),
	}}}
	for _, asked := range []string{"8080", "08080", "+8080", "x", "", "8080x"} {
		c := toPod(t, translatetest.Caller{Identity: alice})
		c.seen["connection"].(map[string]any)["requested_server_name"] = asked
		c.set(Node(g).GetOnDownstreamTlsHandshake())
		require.NotEmpty(t, c.says(names.FilterStateVerdict), asked)
	}
}

// TestWhatIsTooLongIsClosed: what no proxy should hold lets nobody in.
func TestWhatIsTooLongIsClosed(t *testing.T) {
	rule := model.AccessRule{}
	for n := range 30_000 {
		rule.Sources = append(rule.Sources, model.AccessSource{Identity: fmt.Sprint(alice, "-", n)})
	}
	filter := Node(model.PodGuard{Guard: model.Guard{Network: []model.AccessPolicy{policy("a", false, rule)}}})
	require.True(t, proto.Equal(filter.GetOnDownstreamTlsHandshake()[0],
		envoy.FilterState(names.FilterStateVerdict, envoy.FactoryString, tooLong, envoy.SharedNot)))
	require.Len(t, filter.GetOnDownstreamTlsHandshake(), 1)
}

// FuzzQuote: no text ends its literal, or Envoy's format.
func FuzzQuote(f *testing.F) {
	for _, s := range []string{"", "it's", `\`, "100%) ", "\x00\n", "ü", "😀", "%CEL('')%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ToValidUTF8(s, "?")
		literal := quote(s)
		require.NotContains(t, literal, "%")
		require.NotContains(t, literal, ")")
		result, _, err := program(t, literal).Eval(cel.NoVars())
		require.NoError(t, err)
		require.Equal(t, s, result.Value())
	})
}
