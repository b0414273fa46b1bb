// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package node

import (
	"net/netip"
	"os"
	"path/filepath"
	"testing"

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
