// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"flag"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

var testPod = Pod{Ranges: prefixes("10.244.0.0/16", "10.96.0.0/16", "10.244.3.0/24", "fd00:244::/56")}

var testHost = Host{Probes: []netip.AddrPort{
	netip.MustParseAddrPort("10.244.0.3:8080"),
	netip.MustParseAddrPort("10.244.0.3:8080"),
	netip.MustParseAddrPort("[fd00:244::3]:8080"),
}}

// list is our table as the nft program prints it, an oracle that shares no code with us.
func list(t *testing.T, ns *netns.Namespace) string {
	t.Helper()
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("skipped: needs the nft program to print rules")
	}
	var out []byte
	require.NoError(t, ns.Do(func() error {
		runtime.LockOSThread()
		var err error
		out, err = exec.Command(nft, "list", "ruleset").CombinedOutput()
		return err
	}), string(out))
	return string(out)
}

func golden(t *testing.T, name, have string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		require.NoError(t, os.MkdirAll("testdata", 0o755))
		require.NoError(t, os.WriteFile(path, []byte(have), 0o644))
	}
	want, err := os.ReadFile(path)
	require.NoError(t, err, "run the test with -update to write it")
	require.Equal(t, string(want), have)
}

// newPod is a namespace with an interface and addresses.
func newPod(t *testing.T) *netns.Namespace {
	t.Helper()
	ns := netnstest.New(t, "pod")
	netnstest.Link(t, ns, "eth0", netnstest.New(t, "peer"), "veth")
	netnstest.Address(t, ns, "eth0", netip.MustParsePrefix("10.244.0.3/24"))
	netnstest.Address(t, ns, "eth0", netip.MustParsePrefix("fd00:244::3/64"))
	return ns
}

func TestPodRulesAreAsWritten(t *testing.T) {
	ns := newPod(t)
	require.NoError(t, Apply(ns, testPod))
	golden(t, "pod.nft", list(t, ns))
	require.NoError(t, Apply(ns, testPod), "a second time")
	golden(t, "pod.nft", list(t, ns))

	st, err := Verify(ns, testPod)
	require.NoError(t, err)
	require.Equal(t, State{Captured: true}, st)

	require.NoError(t, Remove(ns))
	require.Empty(t, list(t, ns))
	require.NoError(t, Remove(ns), "a second time")
	st, err = Verify(ns, testPod)
	require.NoError(t, err)
	require.Equal(t, State{Drift: []string{"table fairway is missing", "policy routing of answers is missing", "policy routing of answers is missing"}}, st)
}

func TestHostRulesAreAsWritten(t *testing.T) {
	ns := netnstest.New(t, "host")
	require.NoError(t, ApplyHost(ns, testHost))
	golden(t, "host.nft", list(t, ns))
	require.NoError(t, ApplyHost(ns, testHost), "a second time")
	golden(t, "host.nft", list(t, ns))
	st, err := VerifyHost(ns, testHost)
	require.NoError(t, err)
	require.Equal(t, State{Captured: true}, st)
	require.NoError(t, RemoveHost(ns))
	require.Empty(t, list(t, ns))
}
