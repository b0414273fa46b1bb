// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"context"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/require"
)

// TestWhatPodsDialledIsTold once the proxy has fewer endpoints than there are.
func TestWhatPodsDialledIsTold(t *testing.T) {
	w := newWorld(t)
	r := &reconciler{enroller: &enroller{proxy: w, kernel: w, pods: newRegistry()}}
	w.dialled = map[string][]netip.AddrPort{}
	list := []netip.AddrPort{netip.MustParseAddrPort("10.96.0.9:80"), netip.MustParseAddrPort("[fd00:96::9]:80")}
	for name, state := range map[string]State{
		"a": StateCaptured, "b": StateCaptured, "gone": StateCaptured, "waits": StateWaiting,
	} {
		path := filepath.Join(w.netnsDir, name)
		w.dialled[path] = list
		r.pods.set(PodStatus{Namespace: "default", Name: name, UID: name, State: state, Netns: path})
		if name != "gone" {
			require.NoError(t, os.WriteFile(path, nil, 0o600))
		}
	}
	r.share()
	require.Empty(t, w.preferred, "there is room")
	w.short = true
	r.share()
	dialled := []string{"10.96.0.9:80", "[fd00:96::9]:80"}
	require.Equal(t, [][]string{dialled, dialled}, w.preferred)
}

// TestConnectionsThatWaitForTheirAddressWaitLittle: pods are looked at at once, and every few seconds while some addresses are left
// out, for Envoy doesn't ask again for one that was taken back.
func TestConnectionsThatWaitForTheirAddressWaitLittle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := &world{short: true, asks: make(chan struct{}, 1)}
		r := &reconciler{enroller: &enroller{proxy: w, kernel: w, pods: newRegistry()}}
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
		go func() { done <- r.shareForever(ctx) }()
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
