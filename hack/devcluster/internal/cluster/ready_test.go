// Copyright The Fairway Authors.
// SPDX-License-Identifier: Apache-2.0

package cluster

import (
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/fairway-mesh/fairway/hack/devcluster/internal/topology"
)

func TestANodeThatEndedIsNotWaitedFor(t *testing.T) {
	c := &Cluster{Home: topology.Home(t.TempDir()), Out: io.Discard}
	n := topology.Nodes[0]
	if err := os.MkdirAll(c.Home.State(), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.Home.Log(n.Name), []byte(strings.Repeat("before\n", 100)+"devcluster: pivot_root: no\n"),
		0o644); err != nil {
		t.Fatal(err)
	}
	err := c.until(t.Context(), "the API server", n, func(context.Context) (bool, error) {
		t.Error("asked although there is nobody to answer")
		return true, nil
	})
	if err == nil || !strings.Contains(err.Error(), c.Home.Log(n.Name)) ||
		!strings.HasSuffix(err.Error(), "devcluster: pivot_root: no") {
		t.Errorf("got %v", err)
	}
	if lines := strings.Count(err.Error(), "before"); lines > tailLines {
		t.Errorf("%d lines of the log", lines)
	}
}

// A command that finds another at work says so instead of seeming to hang.
func TestTheLockTellsWhoWaits(t *testing.T) {
	home := topology.Home(t.TempDir())
	unlock, err := Lock(home, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	r, w := io.Pipe()
	locked := make(chan error, 1)
	go func() {
		unlock, err := Lock(home, w)
		if err == nil {
			unlock()
		}
		locked <- err
	}()
	said := make([]byte, 200)
	n, err := r.Read(said)
	if err != nil || !strings.Contains(string(said[:n]), home.Lock()) {
		t.Errorf("got %q, %v", said[:n], err)
	}
	unlock()
	if err := <-locked; err != nil {
		t.Error(err)
	}
}
