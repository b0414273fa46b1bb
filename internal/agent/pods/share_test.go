// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"io/fs"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/fairway-mesh/fairway/internal/agent/capture"
)

// dialling are pods that dialled the same, by the paths of their network namespaces, and a proxy that may be short of
// endpoints.
type dialling struct {
	Kernel
	dialled   map[string][]capture.Dial
	mu        sync.Mutex
	short     bool
	preferred [][]string
	asks      chan struct{}
	// unsure from so many identities on; told is what each dialled, and renewed how often all were told.
	unsure  int
	told    map[string][]string
	renewed int
}

func (d *dialling) Dialled(path string) ([]capture.Dial, error) {
	if d.dialled[path] == nil {
		return nil, fs.ErrNotExist
	}
	return d.dialled[path], nil
}

// proxy is what the pods' proxy has.
type proxy struct{ *dialling }

func (d proxy) Short() bool                { return d.short }
func (d proxy) Asks() <-chan struct{}      { return d.asks }
func (d proxy) Unsure(identities int) bool { return d.unsure > 0 && identities >= d.unsure }
func (d proxy) Forget()                    { d.renewed++ }

func (d proxy) DialledBy(identity string, when map[string]time.Time) {
	d.told[identity] = slices.Sorted(maps.Keys(when))
}

func (d proxy) Prefer(pods [][]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.preferred = append([][]string{}, pods...)
}

// TestWhatPodsDialledIsTold once the proxy has fewer endpoints than there are.
func TestWhatPodsDialledIsTold(t *testing.T) {
	list := []capture.Dial{
		{To: netip.MustParseAddrPort("10.96.0.9:80")}, {To: netip.MustParseAddrPort("[fd00:96::9]:80")},
	}
	d := &dialling{
		dialled: map[string][]capture.Dial{"/a": list, "/b": list, "/waits": list}, told: map[string][]string{},
	}
	f := New(Options{Kernel: d, Endpoints: proxy{d}})
	for name, state := range map[string]State{
		"a": StateCaptured, "b": StateCaptured, "gone": StateCaptured, "waits": stateWaiting,
	} {
		f.statuses.set(Status{Namespace: "default", Name: name, UID: name, State: state, Netns: "/" + name, Identity: name})
	}
	f.share()
	require.Empty(t, d.preferred, "there is room")
	d.short = true
	f.share()
	dialled := []string{"10.96.0.9:80", "[fd00:96::9]:80"}
	require.Equal(t, [][]string{dialled, dialled}, d.preferred)
	require.Empty(t, d.told)
	require.Zero(t, d.renewed)

	d.short, d.preferred, d.unsure = false, nil, 4
	f.share()
	require.Empty(t, d.told, "so few identities")
	d.unsure = 3
	f.share()
	require.Equal(t, map[string][]string{"a": dialled, "b": dialled}, d.told)
	require.Equal(t, 1, d.renewed)
	require.Empty(t, d.preferred)
}

// TestWhatAPodDialledIsToldWhenItGoes: nobody can tell later.
func TestWhatAPodDialledIsToldWhenItGoes(t *testing.T) {
	d := &dialling{
		dialled: map[string][]capture.Dial{"/a": {{To: netip.MustParseAddrPort("10.96.0.9:80")}}},
		told:    map[string][]string{},
	}
	f := New(Options{Kernel: d, Endpoints: proxy{d}})
	f.statuses.set(Status{Namespace: "default", Name: "a", UID: "a", State: StateCaptured, Netns: "/a", Identity: "a"})
	f.statuses.set(Status{Namespace: "default", Name: "b", UID: "b", State: StateCaptured, Netns: "/b", Identity: "b"})
	f.goes("a")
	f.goes("b")
	f.goes("c")
	require.Equal(t, map[string][]string{"a": {"10.96.0.9:80"}}, d.told)
}

// TestConnectionsThatWaitForTheirAddressWaitLittle: pods are looked at at once, and every few seconds while some
// addresses are left out, for Envoy doesn't ask again for one that was taken back.
func TestConnectionsThatWaitForTheirAddressWaitLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &dialling{short: true, asks: make(chan struct{}, 1)}
		f := New(Options{Kernel: w, Endpoints: proxy{w}})
		looked := func() bool {
			synctest.Wait()
			w.mu.Lock()
			defer w.mu.Unlock()
			was := w.preferred != nil
			w.preferred = nil
			return was
		}
		ctx, stop := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- f.Share(ctx) }()
		require.False(t, looked())
		w.asks <- struct{}{}
		require.True(t, looked(), "at once")
		w.asks <- struct{}{}
		require.False(t, looked(), "one that asks without end")
		time.Sleep(sharePause)
		require.True(t, looked())
		time.Sleep(sharePause + shareEvery)
		require.True(t, looked(), "a connection that nobody told of")
		stop()
		require.NoError(t, <-done)
	})
}
