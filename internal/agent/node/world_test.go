// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/fairway-mesh/fairway/api/v1alpha1"
	"github.com/fairway-mesh/fairway/internal/agent/capture"
	"github.com/fairway-mesh/fairway/internal/agent/netns"
	"github.com/fairway-mesh/fairway/internal/identity"
	"github.com/fairway-mesh/fairway/internal/names"
	translatenode "github.com/fairway-mesh/fairway/internal/translate/node"
	"github.com/fairway-mesh/fairway/internal/xds"
)

// world is what is around the enrolment on a node (proxy, certificates, container runtime, kernel), in memory. It
// writes down what happens, in order.
type world struct {
	mu        sync.Mutex
	netnsDir  string
	log       []string
	listeners map[string]string // name -> version
	ready     bool
	proxyDown bool
	died      bool
	caDown    bool
	wanted    map[string]int
	sandboxes map[string]string // pod UID -> path
	rules     map[string][]netip.Prefix
	drained   map[string]bool
	share     map[string]uint32
	peers     map[string]uint32
	closed    map[string]bool
	// neighbours are the network namespaces of pods by UID, as the proxy connects to them.
	neighbours  map[string]string
	beyond      map[string]capture.Refused
	dialled     map[string][]capture.Dial
	short       bool
	preferred   [][]string
	asks        chan struct{}
	host        []netip.AddrPort
	changed     chan struct{}
	beside      []*world // whose proxies are on the same node
	connections int      // of the proxy
	counted     int      // is how often it has counted them
	// queues are where what waits in the queue of a listener that closes goes to another.
	queues map[string]string
	// marked are how many connections proxies have in a network namespace.
	marked map[string]int
	// runtimeDown: the container runtime doesn't answer. asked is called when it is asked.
	runtimeDown bool
	asked       func(netns.Pod)
}

func newWorld(t *testing.T) *world {
	return &world{
		netnsDir: t.TempDir(), listeners: map[string]string{}, wanted: map[string]int{}, sandboxes: map[string]string{},
		rules: map[string][]netip.Prefix{}, drained: map[string]bool{}, share: map[string]uint32{},
		peers: map[string]uint32{}, closed: map[string]bool{}, neighbours: map[string]string{},
		beyond: map[string]capture.Refused{}, queues: map[string]string{}, marked: map[string]int{},
		changed: make(chan struct{}),
	}
}

func (w *world) note(format string, args ...any) {
	w.log = append(w.log, fmt.Sprintf(format, args...))
	w.wake()
}

func (w *world) wake() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// do changes the world from outside.
func (w *world) do(f func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	f()
	w.wake()
}

// await waits until something is so.
func (w *world) await(ctx context.Context, what func() error) error {
	for {
		w.mu.Lock()
		err, changed := what(), w.changed
		w.mu.Unlock()
		if err == nil {
			return nil
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", err, ctx.Err())
		}
	}
}

// sandbox gives a pod a network namespace.
func (w *world) sandbox(t *testing.T, uid, name string) string {
	path := filepath.Join(w.netnsDir, name)
	require.NoError(t, os.WriteFile(path, nil, 0o600))
	w.do(func() { w.sandboxes[uid] = path })
	return path
}

func (w *world) history() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.log)
}

// index of the first line of the history with a prefix, or -1.
func (w *world) index(prefix string) int {
	return slices.IndexFunc(w.history(), func(s string) bool { return strings.HasPrefix(s, prefix) })
}

func (w *world) listenerNames() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Sorted(maps.Keys(w.listeners))
}

func (w *world) SetLocal(_ string, updates []xds.Update) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, u := range updates {
		if u.Resource == nil {
			delete(w.listeners, u.Name)
			w.note("unset %s", u.Name)
			continue
		}
		w.listeners[u.Name] = u.Resource.Version()
		w.note("set %s", u.Name)
	}
}

// Captured, Released and Forgotten implement enrol.Neighbours.
func (w *world) Captured(p translatenode.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.neighbours[p.UID] != p.Netns {
		w.neighbours[p.UID] = p.Netns
		w.note("neighbour %s", filepath.Base(p.Netns))
	}
}

func (w *world) Released(_ context.Context, uid string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if path, known := w.neighbours[uid]; known {
		delete(w.neighbours, uid)
		w.note("no neighbour %s", filepath.Base(path))
	}
}

func (w *world) Forgotten(ctx context.Context, uid string) { w.Released(ctx, uid) }

func (w *world) LocalReady(string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.ready = true
	w.note("ready %d", len(w.listeners))
}

func (w *world) KeepSnapshot(keep bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("snapshot %t", keep)
}

func (w *world) WaitAcked(ctx context.Context, id xds.ID) error {
	return w.await(ctx, func() error {
		if w.proxyDown || w.listeners[id.Name] == "" {
			return errors.New("no Envoy is connected")
		}
		return nil
	})
}

func (w *world) Want(id string, _ identity.Pod) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.wanted[id]++
	w.note("want %s", id)
	return nil
}

func (w *world) Unwant(id string, _ identity.Pod) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.wanted[id]--; w.wanted[id] == 0 {
		delete(w.wanted, id)
	}
	w.note("unwant %s", id)
}

func (w *world) Await(ctx context.Context, id string) error {
	return w.await(ctx, func() error {
		if w.caDown || w.wanted[id] == 0 {
			return errors.New("no certificate")
		}
		return nil
	})
}

func (w *world) Netns(ctx context.Context, pod netns.Pod) (string, error) {
	w.mu.Lock()
	asked := w.asked
	w.mu.Unlock()
	if asked != nil {
		asked(pod)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.runtimeDown {
		return "", cmp.Or(ctx.Err(), errors.New("the runtime is silent"))
	}
	for _, uid := range pod.UIDs {
		if path := w.sandboxes[uid]; path != "" {
			return path, nil
		}
	}
	return "", netns.ErrNoSandbox
}

func (w *world) exists(path string) error {
	if _, err := os.Stat(path); err != nil {
		return fs.ErrNotExist
	}
	return nil
}

func (w *world) Listening(path string, ports ...uint16) (map[uint16]bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[uint16]bool{}
	for _, p := range ports {
		out[p] = w.listens(p) || slices.ContainsFunc(w.beside, func(o *world) bool {
			o.mu.Lock()
			defer o.mu.Unlock()
			return o.listens(p)
		})
	}
	return out, w.exists(path)
}

func (w *world) listens(port uint16) bool {
	return !w.proxyDown && len(w.listeners) > 0 && (port != names.PortMTLS || !w.caDown)
}

func (w *world) Apply(path string, p capture.Pod) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules[path], w.share[path], w.peers[path], w.closed[path] = p.Ranges, p.Share, p.Peers, p.Closed
	delete(w.drained, path)
	w.note("apply %s", filepath.Base(path))
	return w.exists(path)
}

func (w *world) UpdateSets(path string, p capture.Pod) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.rules[path], w.closed[path] = p.Ranges, p.Closed
	w.note("ranges %s", filepath.Base(path))
	return w.exists(path)
}

func (w *world) Verify(path string, p capture.Pod) ([]string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if !slices.Equal(w.rules[path], p.Ranges) || w.drained[path] {
		return []string{"other rules"}, nil
	}
	return nil, w.exists(path)
}

func (w *world) MigrateQueues(path, to string) (string, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	was := cmp.Or(w.queues[path], "0")
	w.queues[path] = to
	return was, w.exists(path)
}

func (w *world) Marked(path string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.marked[path], w.exists(path)
}

func (w *world) EndMarked(path string) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	ended := w.marked[path]
	delete(w.marked, path)
	w.note("end %d marked %s", ended, filepath.Base(path))
	return ended, w.exists(path)
}

func (w *world) CanLimitPeers() error { return nil }

func (w *world) Refused(path string) (capture.Refused, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.beyond[path], w.exists(path)
}

func (w *world) Dialled(path string) ([]capture.Dial, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.dialled[path], w.exists(path)
}

func (w *world) Short() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.short
}

func (w *world) Asks() <-chan struct{} { return w.asks }

func (w *world) Prefer(pods [][]string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.preferred = append([][]string{}, pods...)
}

func (w *world) Unsure(int) bool { return false }

func (w *world) DialledBy(string, map[string]time.Time) {}
func (w *world) Forget()                                {}

func (w *world) EndPlaintext(path string, _ []netip.AddrPort, refused func(uint16) bool) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("end plaintext %s 8080=%t", filepath.Base(path), refused(8080))
	return 0, w.exists(path)
}

func (w *world) EndProxied(path string, _ []capture.Proxied) (int, error) {
	return 0, w.exists(path)
}

func (w *world) EndOutbound(path string, p capture.Pod) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("end outbound %s closed=%t", filepath.Base(path), p.Closed)
	return 0, w.exists(path)
}

func (w *world) Prepare(path string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.note("prepare %s", filepath.Base(path))
	return w.exists(path)
}

func (w *world) Drain(path string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.drained[path] = true
	w.note("drain %s", filepath.Base(path))
	return w.exists(path)
}

func (w *world) Remove(path string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	delete(w.rules, path)
	w.note("remove %s", filepath.Base(path))
	return w.exists(path)
}

func (w *world) Has(path string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rules[path] != nil, w.exists(path)
}

func (w *world) Redirects(path string) (bool, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.rules[path] != nil && !w.drained[path], w.exists(path)
}

func (w *world) ApplyHost(h capture.Host) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.host = h.Probes
	w.note("host %d", len(h.Probes))
	return nil
}

func (w *world) VerifyHost(h capture.Host) ([]string, error) { return nil, nil }

func (w *world) RemoveHost() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.host = nil
	w.note("remove host")
	return nil
}

// testRanges are those of testMesh.
func testRanges() []netip.Prefix {
	return []netip.Prefix{netip.MustParsePrefix("10.96.0.0/16"), netip.MustParsePrefix("10.244.0.0/16")}
}

func testMesh() *v1alpha1.Mesh {
	return &v1alpha1.Mesh{
		ObjectMeta: metav1.ObjectMeta{Name: names.Mesh},
		Spec:       v1alpha1.MeshSpec{TrustDomain: "example.org"},
		Status: v1alpha1.MeshStatus{Network: &v1alpha1.NetworkStatus{
			PodCIDRs: []string{"10.244.0.0/16"}, ServiceCIDRs: []string{"10.96.0.0/16"},
		}},
	}
}
