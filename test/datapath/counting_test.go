// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package datapath

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/counts"
	"github.com/fairway-mesh/fairway/internal/eventually"
)

// TestTheAgentCountsCallers: of those who would be refused if no policy were only tried, and of those in plain text,
// the agent beside the pod's proxy hears one by one, whoever they are; of others it doesn't.
func TestTheAgentCountsCallers(t *testing.T) {
	m := newMesh(t)
	alice, bob := m.nodes[0].newMember("alice", false), m.nodes[0].newMember("bob", false)
	outsider := m.nodes[0].newPod("outsider")
	server, strict := m.nodes[1].newMember("server", false), m.nodes[1].newMember("strict", true)
	for _, p := range []*pod{server, strict} {
		p.greet(8080)
		p.workload(8080)
	}
	to := server.at(8080).String()
	server.enforced(guardOf(dryRun(denies("tried", from(bob))), dryRun(allows("few", from(alice), from(bob)))))
	for _, p := range []*pod{alice, bob, bob, outsider} {
		requireHello(t, p, to, "server sees "+p.addr.String())
	}
	server.enforced(guardOf(allows("a", from(alice)), dryRun(denies("b", anybody()))))
	requireHello(t, alice, to, "server sees "+alice.addr.String())
	requireRefused(t, bob, to)
	requireRefused(t, outsider, to)
	requireRefused(t, outsider, strict.at(8080).String())

	const noAllow = "no ALLOW policy of level Network matches"
	in, out := "default/server", outsider.addr.String()
	want := map[counts.Series]uint64{
		{Kind: counts.Tried, Destination: in, Verdict: "DENY default/tried rule 0"}:                2,
		{Kind: counts.Tried, Destination: in, Verdict: noAllow, Anonymous: true}:                   1,
		{Kind: counts.Tried, Destination: in, Verdict: "DENY default/b rule 0"}:                    1,
		{Kind: counts.Refused, Destination: in, Verdict: noAllow, Anonymous: true}:                 1,
		{Kind: counts.Plaintext, Destination: in, Source: out, Anonymous: true}:                    1,
		{Kind: counts.Strict, Destination: in, Source: out, Anonymous: true}:                       1,
		{Kind: counts.Strict, Destination: "default/" + strict.name, Source: out, Anonymous: true}: 1,
	}
	callers := map[string]bool{}
	eventually.Passes(t, "callers are counted", func(look require.TestingT) {
		have := map[counts.Series]uint64{}
		for _, c := range m.nodes[1].counter.Take(true) {
			have[c.Series] = c.Value
			callers[c.Caller] = true
			require.WithinDuration(look, time.Now(), c.Last, time.Minute)
		}
		require.Equal(look, want, have)
	})
	require.Equal(t, map[string]bool{alice.identity: true, bob.identity: true, out: true}, callers)
	require.Empty(t, m.nodes[0].counter.Take(true), "nothing came to the pods of the other node")
}
