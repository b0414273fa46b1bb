// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package scale

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
	"github.com/stretchr/testify/require"
	"github.com/vishvananda/netlink"

	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/agent/netns/netnstest"
	"github.com/fairway-mesh/fairway/internal/eventually"
	"github.com/fairway-mesh/fairway/internal/introspect"
	"github.com/fairway-mesh/fairway/internal/names"
)

// The test's own network: the API server, one network for each operator, and an address for each proxy, which are all
// in the test's namespace.
var (
	apiAddress   = netip.MustParseAddrPort("10.80.255.1:6443")
	proxyRange   = netip.MustParsePrefix("10.90.0.0/16")
	serviceRange = netip.MustParsePrefix("10.96.0.0/12")
)

// newNetwork sets up the test's namespace.
func newNetwork(t testing.TB) *netns.Namespace {
	t.Helper()
	netnstest.NeedRoot(t)
	hub, err := netns.Open("/proc/self/ns/net")
	require.NoError(t, err)
	t.Cleanup(func() { _ = hub.Close() })
	lo, err := netlink.LinkByName("lo")
	require.NoError(t, err)
	require.NoError(t, netlink.LinkSetUp(lo))
	netnstest.Address(t, hub, "lo", netip.PrefixFrom(apiAddress.Addr(), 32))
	_, local, err := net.ParseCIDR(proxyRange.String())
	require.NoError(t, err)
	require.NoError(t, netlink.RouteAdd(&netlink.Route{
		LinkIndex: lo.Attrs().Index, Dst: local, Table: routeTableLocal, Type: routeTypeLocal, Scope: netlink.SCOPE_HOST,
	}), "be all addresses of the proxies")
	netnstest.Sysctl(t, hub, "net/ipv4/ip_forward", "1")
	return hub
}

// RT_TABLE_LOCAL and RTN_LOCAL.
const routeTableLocal, routeTypeLocal = 255, 2

// operator is a replica: a process in a namespace of its own, which may end and start again.
type operator struct {
	t          testing.TB
	name       string
	address    netip.Addr
	ns         *netns.Namespace
	kubeconfig string
	http       *http.Client

	cmd   *exec.Cmd
	stdin io.Closer
	log   *os.File
}

func newOperator(t testing.TB, hub *netns.Namespace, n int, kubeconfig string) *operator {
	t.Helper()
	o := &operator{
		t: t, name: fmt.Sprint("operator-", n), kubeconfig: kubeconfig, ns: netnstest.New(t, fmt.Sprint("operator", n)),
		address: netip.AddrFrom4([4]byte{10, 80, byte(n), 2}),
	}
	gateway, link := netip.AddrFrom4([4]byte{10, 80, byte(n), 1}), fmt.Sprint("op", n)
	netnstest.Link(t, o.ns, "eth0", hub, link)
	netnstest.Address(t, o.ns, "eth0", netip.PrefixFrom(o.address, 24))
	netnstest.Address(t, hub, link, netip.PrefixFrom(gateway, 24))
	netnstest.Route(t, o.ns, "eth0", netip.MustParsePrefix("0.0.0.0/0"), gateway)
	o.http = &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, network, address string) (c net.Conn, err error) {
			err = o.ns.Do(func() (err error) {
				c, err = new(net.Dialer).DialContext(ctx, network, address)
				return err
			})
			return c, err
		},
	}}
	var err error
	o.log, err = os.Create(filepath.Join(t.TempDir(), o.name+".log"))
	require.NoError(t, err)
	t.Cleanup(func() {
		o.end(syscall.SIGTERM)
		o.http.CloseIdleConnections()
		if text, err := os.ReadFile(o.log.Name()); err == nil && t.Failed() {
			t.Logf("%s said:\n%s", o.name, text[max(0, len(text)-8192):])
		}
		_ = o.log.Close()
	})
	return o
}

// settings are variables that a program's memory follows, and where the API server is. Those of whoever runs the test
// are not the operator's.
var settings = []string{"GOGC", "GOMEMLIMIT", "KUBECONFIG"}

// start begins the process.
func (o *operator) start() {
	o.t.Helper()
	o.cmd = exec.CommandContext(context.WithoutCancel(o.t.Context()), "/proc/self/exe", "--pod-name", o.name)
	o.cmd.Env = append(slices.DeleteFunc(os.Environ(), func(v string) bool {
		name, _, _ := strings.Cut(v, "=")
		return slices.Contains(settings, name)
	}), envOperator+"=1", "KUBECONFIG="+o.kubeconfig)
	o.cmd.Env = append(o.cmd.Env, strings.Fields(*environment)...)
	o.cmd.Stdout, o.cmd.Stderr = o.log, o.log
	var err error
	o.stdin, err = o.cmd.StdinPipe()
	require.NoError(o.t, err)
	require.NoError(o.t, o.ns.Do(o.cmd.Start))
}

// end stops the process by a signal, if it runs, and waits until it is gone.
func (o *operator) end(by syscall.Signal) {
	if o.cmd == nil {
		return
	}
	_ = o.cmd.Process.Signal(by)
	_ = o.cmd.Wait() // it was told to
	o.cmd = nil
}

// ready waits until the replica serves proxies.
func (o *operator) ready() {
	o.t.Helper()
	eventually.Within(o.t, patience, o.name+" is ready", func() error {
		r, err := o.get(fmt.Sprintf("http://%s/readyz", net.JoinHostPort("127.0.0.1", fmt.Sprint(names.PortOperatorHealth))))
		if err == nil && r == nil {
			err = errors.New("it is not")
		}
		return err
	})
}

// get is nil where the answer isn't 200.
func (o *operator) get(url string) ([]byte, error) {
	req, err := http.NewRequestWithContext(o.t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	r, err := o.http.Do(req)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	if r.StatusCode != http.StatusOK {
		return nil, nil
	}
	text, err := io.ReadAll(r.Body)
	return append([]byte{}, text...), err
}

// usage is what a process has used so far.
type usage struct {
	cpu time.Duration
	// resident is what it has in memory, of which file is the program's own; peak the most that it had; live what is left
	// of the heap after a collection.
	resident, file, peak, live int64
	collections                int64
	// writes are its requests to the API server that change something, sent the bytes of its responses to proxies.
	writes, sent int64
	streams      int64
}

func (o *operator) usage() usage {
	o.t.Helper()
	var out usage
	out.cpu = o.cpu()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", o.cmd.Process.Pid))
	require.NoError(o.t, err)
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		if len(f) != 3 {
			continue
		}
		kb, _ := strconv.ParseInt(f[1], 10, 64)
		switch f[0] {
		case "VmRSS:":
			out.resident = kb << 10
		case "RssFile:":
			out.file = kb << 10
		case "VmHWM:":
			out.peak = kb << 10
		}
	}
	for _, m := range o.metrics()["go_gc_duration_seconds"].GetMetric() {
		out.collections += int64(m.GetSummary().GetSampleCount())
	}
	o.collect()
	for name, family := range o.metrics() {
		for _, m := range family.GetMetric() {
			switch name {
			case "go_memstats_heap_alloc_bytes":
				out.live = int64(m.GetGauge().GetValue())
			case "fairway_xds_sent_bytes_total":
				out.sent += int64(m.GetCounter().GetValue())
			case "fairway_xds_connected_proxies":
				out.streams += int64(m.GetGauge().GetValue())
			case "rest_client_requests_total":
				if changes(m) {
					out.writes += int64(m.GetCounter().GetValue())
				}
			}
		}
	}
	return out
}

// cpu is what the process has used, of user and system, in ticks of 10 ms.
func (o *operator) cpu() time.Duration {
	o.t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", o.cmd.Process.Pid))
	require.NoError(o.t, err)
	_, rest, _ := strings.Cut(string(text), ") ")
	f := strings.Fields(rest)
	user, err := strconv.Atoi(f[11])
	require.NoError(o.t, err)
	system, err := strconv.Atoi(f[12])
	require.NoError(o.t, err)
	return time.Duration(user+system) * 10 * time.Millisecond
}

func changes(m *dto.Metric) bool {
	method := ""
	for _, l := range m.GetLabel() {
		if l.GetName() == "method" {
			method = l.GetValue()
		}
	}
	return method != http.MethodGet && method != ""
}

// collect has the process collect its garbage.
func (o *operator) collect() {
	o.t.Helper()
	o.ask("/gc")
}

// ask the process about itself.
func (o *operator) ask(path string) []byte {
	o.t.Helper()
	text, err := o.get(fmt.Sprintf("http://127.0.0.1:%d%s", portPprof, path))
	require.NoError(o.t, err)
	return text
}

func (o *operator) metrics() map[string]*dto.MetricFamily {
	o.t.Helper()
	text, err := o.get("http://" + introspect.LoopbackAddress + introspect.PathMetrics)
	require.NoError(o.t, err)
	p := expfmt.NewTextParser(model.UTF8Validation)
	out, err := p.TextToMetricFamilies(bytes.NewReader(text))
	require.NoError(o.t, err)
	return out
}

// heap writes what is in use where profiles are wanted.
func (o *operator) heap(when string) {
	o.t.Helper()
	if *profiles != "" {
		o.keep("heap", when, o.ask("/heap"))
	}
}

func (o *operator) keep(kind, when string, profile []byte) {
	o.t.Helper()
	require.NoError(o.t, os.MkdirAll(*profiles, 0o755))
	path := filepath.Join(*profiles, fmt.Sprintf("%s-%s-%s.pb.gz", o.name, when, kind))
	require.NoError(o.t, os.WriteFile(path, profile, 0o600))
}
