// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package pods

import (
	"context"
	"io/fs"
	"net/netip"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// dialling are pods that dialled the same, by the paths of their network namespaces, and a proxy that may be short of
// endpoints.
type dialling struct {
	Kernel
	dialled   map[string][]netip.AddrPort
	mu        sync.Mutex
	short     bool
	preferred [][]string
	asks      chan struct{}
}

func (d *dialling) Dialled(path string) ([]netip.AddrPort, error) {
	if d.dialled[path] == nil {
		return nil, fs.ErrNotExist
	}
	return d.dialled[path], nil
}

func (d *dialling) Short() bool           { return d.short }
func (d *dialling) Asks() <-chan struct{} { return d.asks }

func (d *dialling) Prefer(pods [][]string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.preferred = append([][]string{}, pods...)
}

// TestWhatPodsDialledIsTold once the proxy has fewer endpoints than there are.
func TestWhatPodsDialledIsTold(t *testing.T) {
	list := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.9:80"), netip.MustParseAddrPort("[fd00:96::9]:80")}
	d := &dialling{dialled: map[string][]netip.AddrPort{"/a": list, "/b": list, "/waits": list}}
	f := New(Options{Kernel: d, Endpoints: d})
	for name, state := range map[string]State{
		"a": StateCaptured, "b": StateCaptured, "gone": StateCaptured, "waits": stateWaiting,
	} {
		f.statuses.set(Status{Namespace: "default", Name: name, UID: name, State: state, Netns: "/" + name})
	}
	f.share()
	require.Empty(t, d.preferred, "there is room")
	d.short = true
	f.share()
	dialled := []string{"10.96.0.9:80", "[fd00:96::9]:80"}
	require.Equal(t, [][]string{dialled, dialled}, d.preferred)
}

// TestConnectionsThatWaitForTheirAddressWaitLittle: pods are looked at at once, and every few seconds while some
// addresses are left out, for Envoy doesn't ask again for one that was taken back.
func TestConnectionsThatWaitForTheirAddressWaitLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &dialling{short: true, asks: make(chan struct{}, 1)}
		f := New(Options{Kernel: w, Endpoints: w})
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
