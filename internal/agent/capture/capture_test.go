// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package capture

import (
	"flag"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/names"
	"github.com/fairway-mesh/fairway/internal/proxymark"
)

var update = flag.Bool("update", false, "write the golden files")

func prefixes(s ...string) []netip.Prefix {
	var out []netip.Prefix
	for _, p := range s {
		out = append(out, netip.MustParsePrefix(p))
	}
	return out
}

// testMark is the same each time, for the golden files.
var testMark = proxymark.From(0x0badcafe, 0x1badcafe)

var testPod = Pod{
	Proxy: testMark, Ranges: prefixes("10.244.0.0/16", "10.96.0.0/16", "10.244.3.0/24", "fd00:244::/56"), Peers: 2048,
}

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

	drift, err := Verify(ns, testPod)
	require.NoError(t, err)
	require.Empty(t, drift)

	require.NoError(t, Remove(ns))
	require.Empty(t, list(t, ns))
	require.NoError(t, Remove(ns), "a second time")
	drift, err = Verify(ns, testPod)
	require.NoError(t, err)
	require.Equal(t, []string{
		"table fairway is missing", "policy routing of answers is missing",
		"policy routing of answers is missing",
	}, drift)
}

func TestHostRulesAreAsWritten(t *testing.T) {
	ns := netnstest.New(t, "host")
	require.NoError(t, ApplyHost(ns, testHost))
	golden(t, "host.nft", list(t, ns))
	require.NoError(t, ApplyHost(ns, testHost), "a second time")
	golden(t, "host.nft", list(t, ns))
	drift, err := VerifyHost(ns, testHost)
	require.NoError(t, err)
	require.Empty(t, drift)
	require.NoError(t, RemoveHost(ns))
	require.Empty(t, list(t, ns))
}

// TestCapturePorts has nobody behind the ports that the rules redirect to.
func TestCapturePorts(t *testing.T) {
	ns := newPod(t)
	require.NoError(t, Apply(ns, testPod))
	listen := func(addr string) net.Listener {
		var l net.Listener
		require.NoError(t, ns.Do(func() (err error) { l, err = net.Listen("tcp", addr); return err }))
		t.Cleanup(func() { _ = l.Close() })
		return l
	}
	dial := func(from, to string) error {
		local, err := net.ResolveTCPAddr("tcp", from)
		require.NoError(t, err)
		return ns.Do(func() error {
			c, err := (&net.Dialer{LocalAddr: local, Timeout: 5 * time.Second}).Dial("tcp", to)
			if err == nil {
				err = c.Close()
			}
			return err
		})
	}
	server := listen("127.0.0.1:9999")
	for _, port := range []int{names.PortOutbound, names.PortInbound} {
		require.NoError(t, dial(fmt.Sprintf("127.0.0.2:%d", port), server.Addr().String()), "it may be a client's port")
		l := listen(fmt.Sprintf("127.0.0.1:%d", port))
		require.ErrorIs(t, dial("127.0.0.1:0", l.Addr().String()), syscall.ECONNREFUSED, "nobody may dial it")
	}
}

// TestVerifySeesEveryChange breaks the rules in each way that a person or a program might.
func TestVerifySeesEveryChange(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("skipped: needs the nft program to change rules")
	}
	for name, c := range map[string]struct {
		command string
		drift   string
	}{
		"a rule is added":      {"insert rule inet fairway capture-in accept", "chain capture-in has 6 rules instead of 5"},
		"a chain is emptied":   {"flush chain inet fairway answers", "chain answers has 0 rules instead of 2"},
		"a set is emptied":     {"flush set inet fairway ranges4", "set ranges4 has other elements"},
		"an element is added":  {"add element inet fairway ranges4 { 192.0.2.0/24 }", "set ranges4 has other elements"},
		"the table is removed": {"delete table inet fairway", "table fairway is missing"},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newPod(t)
			require.NoError(t, Apply(ns, testPod))
			require.NoError(t, ns.Do(func() error { return exec.Command(nft, c.command).Run() }))
			drift, err := Verify(ns, testPod)
			require.NoError(t, err)
			require.Equal(t, []string{c.drift}, drift)
			require.NoError(t, Apply(ns, testPod))
			drift, err = Verify(ns, testPod)
			require.NoError(t, err)
			require.Empty(t, drift)
		})
	}
	t.Run("other ranges are wanted", func(t *testing.T) {
		ns := newPod(t)
		require.NoError(t, Apply(ns, testPod))
		other := Pod{Proxy: testMark, Ranges: prefixes("10.244.0.0/16"), Peers: testPod.Peers}
		drift, err := Verify(ns, other)
		require.NoError(t, err)
		require.NotEmpty(t, drift)
		require.NoError(t, UpdateSets(ns, other))
		drift, err = Verify(ns, other)
		require.NoError(t, err)
		require.Empty(t, drift)
	})
	t.Run("policy routing is gone", func(t *testing.T) {
		ns := newPod(t)
		require.NoError(t, Apply(ns, testPod))
		require.NoError(t, inPolicyRouting(ns, removeRouting))
		drift, err := Verify(ns, testPod)
		require.NoError(t, err)
		require.NotEmpty(t, drift)
		require.NoError(t, Apply(ns, testPod))
		drift, err = Verify(ns, testPod)
		require.NoError(t, err)
		require.Empty(t, drift)
	})
}

// TestOthersRulesStay has rules of other programs in the same namespaces.
func TestOthersRulesStay(t *testing.T) {
	nft, err := exec.LookPath("nft")
	if err != nil {
		t.Skip("skipped: needs the nft program to make rules")
	}
	const others = `table ip kube-proxy {
	chain nat-postrouting {
		type nat hook postrouting priority srcnat; policy accept;
		masquerade
	}
}
`
	ns := newPod(t)
	file := filepath.Join(t.TempDir(), "others.nft")
	require.NoError(t, os.WriteFile(file, []byte(others), 0o600))
	require.NoError(t, ns.Do(func() error { return exec.Command(nft, "-f", file).Run() }))
	require.NoError(t, ApplyHost(ns, testHost))
	require.NoError(t, RemoveHost(ns))
	require.NoError(t, Apply(ns, testPod))
	require.NoError(t, Remove(ns))
	require.Equal(t, others, list(t, ns))
}

func TestIntervals(t *testing.T) {
	for _, c := range []struct {
		name string
		in   []netip.Prefix
		want []string
	}{
		{"none", nil, nil},
		{"other family", prefixes("fd00::/8"), nil},
		{"nested", prefixes("10.0.0.0/8", "10.1.0.0/16"), []string{"10.0.0.0", "end 11.0.0.0"}},
		{"adjacent", prefixes("10.0.0.0/9", "10.128.0.0/9"), []string{"10.0.0.0", "end 11.0.0.0"}},
		{
			"apart, in any order, with host bits", prefixes("10.2.3.4/16", "10.0.0.1/16"),
			[]string{"10.0.0.0", "end 10.1.0.0", "10.2.0.0", "end 10.3.0.0"},
		},
		{"everything", prefixes("0.0.0.0/0"), []string{"0.0.0.0"}},
		{"the last address", prefixes("255.255.255.255/32"), []string{"255.255.255.255"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var have []string
			for _, e := range intervals(families[0], c.in) {
				a, _ := netip.AddrFromSlice(e.Key)
				s := a.String()
				if e.IntervalEnd {
					s = "end " + s
				}
				have = append(have, s)
			}
			require.Equal(t, c.want, have)
			ns := netnstest.New(t, "pod")
			require.NoError(t, Apply(ns, Pod{Proxy: testMark, Ranges: c.in}), "the kernel takes it")
			drift, err := Verify(ns, Pod{Proxy: testMark, Ranges: c.in})
			require.NoError(t, err)
			require.Empty(t, drift)
		})
	}
}

// kernelTick is more than one of the kernel's clock.
const kernelTick = 100 * time.Millisecond

// TestShareOfAPod dials ever new addresses. Others of the pod go on, as do all of another pod.
func TestShareOfAPod(t *testing.T) {
	for name, address := range map[string]func(n int) netip.Addr{
		"IPv4": func(n int) netip.Addr { return netip.AddrFrom4([4]byte{10, 96, byte(n >> 8), byte(n)}) },
		"IPv6": func(n int) netip.Addr {
			return netip.AddrFrom16([16]byte{0: 0xfd, 2: 0x02, 3: 0x44, 13: 1, 14: byte(n >> 8), 15: byte(n)})
		},
	} {
		t.Run(name, func(t *testing.T) {
			ns := newPod(t)
			netnstest.Route(t, ns, "eth0", netip.MustParsePrefix("0.0.0.0/0"), netip.MustParseAddr("10.244.0.1"))
			netnstest.Route(t, ns, "eth0", netip.MustParsePrefix("::/0"), netip.MustParseAddr("fd00:244::1"))
			pod := testPod
			pod.Share = 300
			most := int(pod.Share)
			require.NoError(t, Apply(ns, pod))
			netnstest.Echo(t, ns, fmt.Sprintf(":%d", names.PortOutbound)) // the proxy
			dial := func(n int) error { return dialOnce(ns, netip.AddrPortFrom(address(n), 80)) }
			beyond := func() uint64 {
				n, err := ReadRefused(ns)
				require.NoError(t, err)
				return n.Share
			}
			for n := range most {
				require.NoError(t, dial(n))
			}
			require.Zero(t, beyond())
			require.ErrorIs(t, dial(most), syscall.ECONNREFUSED)
			require.NoError(t, dial(0), "what was dialled before")
			require.NoError(t, UpdateSets(ns, pod))
			require.ErrorIs(t, dial(most), syscall.ECONNREFUSED, "an update changes nothing about it")
			require.EqualValues(t, 2, beyond())
			drift, err := Verify(ns, pod)
			require.NoError(t, err)
			require.Empty(t, drift, "what is counted is no change of the rules")

			pod.Share++
			drift, err = Verify(ns, pod)
			require.NoError(t, err)
			require.Len(t, drift, len(families), "another share is wanted: %v", drift)
			require.NoError(t, Apply(ns, pod))
			require.NoError(t, dial(most))
			require.Zero(t, beyond())
			for _, last := range []int{0, most} {
				// The kernel's clock has ticks.
				eventually.Passes(t, fmt.Sprint("dialled last: ", last), func(look require.TestingT) {
					before := time.Now()
					require.NoError(look, dial(last))
					dialled, err := Dialled(ns)
					require.NoError(look, err)
					require.Len(look, dialled, 2)
					require.Equal(look, []netip.AddrPort{
						netip.AddrPortFrom(address(last), 80), netip.AddrPortFrom(address(most-last), 80),
					}, []netip.AddrPort{dialled[0].To, dialled[1].To}, "the last one first")
					require.WithinRange(look, dialled[0].At, before.Add(-kernelTick), time.Now().Add(kernelTick))
				})
			}
			require.NoError(t, Remove(ns))
			_, err = Dialled(ns)
			require.Error(t, err)
		})
	}
}
